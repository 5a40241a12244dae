"""docs/metrics.md as data, and what a daemon really exports, to compare the two."""
import re
import urllib.request

import cluster as clusters

PAGE = clusters.SOURCE / "docs" / "metrics.md"
COMMON = {"worker": {"model_name", "pool", "memory_class", "worker"}, "router": set(), "gateway": {"model_name"}}
TYPES = {"counter", "gauge", "histogram"}


def listed():
    """Kind of daemon to {metric: (type, labels, of)}; `of` says which workers export it."""
    page, kind = {}, None
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            kind = line[3:].strip().lower()
            page[kind] = {}
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if kind is None or not line.startswith("| `"):
            continue
        name, metric_type = cells[0].strip("`"), cells[1]
        assert metric_type in TYPES, line
        assert name not in page[kind], f"{name} stands twice in {PAGE}"
        # `metric | type | unit | labels | of | meaning` of workers; the others have no `of`.
        labels = set(re.findall(r"`(\w+)`", cells[3])) | COMMON[kind]
        page[kind][name] = (metric_type, labels, cells[4] if kind == "worker" else "all")
    assert set(page) == set(COMMON), page.keys()
    return page


def applies(of, worker):
    """Whether a worker, as `tandemctl status --json` shows it, exports what the page says of such workers."""
    return {"all": True, "emulated": worker.get("time_scale", 0) > 0, "attention": "attention" in worker["stages"],
            "prefill or attention": bool({"prefill", "attention"} & set(worker["stages"]))}[of]


def exported(url):
    """{metric: (type, labels)} of a /metrics page; a histogram is one metric, without `le`."""
    with urllib.request.urlopen(url, timeout=30) as reply:
        text = reply.read().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    labels = {}
    for name, pairs in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", text, re.M):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = base if types.get(base) == "histogram" else name
        labels.setdefault(metric, set()).update(set(re.findall(r'(\w+)="', pairs)) - {"le"})
    return {name: (types[name], found) for name, found in labels.items()}


def differences(kind, url, worker=None, all_of_it=True):
    """Lines that say what of the page is not true for one daemon. Without `all_of_it` a listed metric may be missing."""
    page, real = listed()[kind], exported(url)
    found = []
    for name, (metric_type, labels) in real.items():
        if name not in page:
            found.append(f"{name} is exported by {url} and not in the page")
        elif (metric_type, labels) != page[name][:2]:
            found.append(f"{name}: the page says {page[name][0]} {sorted(page[name][1])}, {url} {metric_type} {sorted(labels)}")
        elif worker is not None and not applies(page[name][2], worker):
            found.append(f"{name}: the page says of {page[name][2]}, {url} is none")
    for name, (_, _, of) in page.items():
        if all_of_it and name not in real and (worker is None or applies(of, worker)):
            found.append(f"{name} is in the page and not exported by {url}")
    return found
