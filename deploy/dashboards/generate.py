#!/usr/bin/env python3
"""Writes the four Grafana dashboards of this folder: deploy/dashboards/generate.py [--check]

They are checked in, so that nobody needs this script to import them. --check writes nothing: exit 1, and a line for each file that
differs from what this script makes. Needs PyPI's grafana-foundation-sdk (tests/e2e/requirements.txt has the version).

Rates over wall time would be wrong for emulated devices, whose seconds pass slower: a rate here is per device second
(`per_second`), and a share divides device time by device time.
"""
import argparse
import pathlib
import sys

from grafana_foundation_sdk.builders import bargauge, common, dashboard, text, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, StackingMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef
from grafana_foundation_sdk.models.text import TextMode

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
ELAPSED = "tandem_device_elapsed_seconds_total"
STATES = "tandem_stage_seconds_total"
POOL = 'pool=~"$pool"'


# ---- PromQL in small pieces.

def rate(metric, by=(), matchers=""):
    inner = f"rate({metric}{{{matchers}}}[$__rate_interval])" if matchers else f"rate({metric}[$__rate_interval])"
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


def per_second(metric, by=(), matchers=""):
    """A rate per second of the devices' time: in real time what rate() says."""
    return f"{rate(metric, by, matchers)} / scalar(avg(rate({ELAPSED}[$__rate_interval])))"


def share(by, matchers):
    """Device time in some states, over all of the pool's. `by` has `pool`."""
    return f"{rate(STATES, by, f'{matchers}, {POOL}')} / on (pool) group_left {rate(ELAPSED, ['pool'], POOL)}"


def quantile(q, metric, by=()):
    return f"histogram_quantile({q}, {rate(metric + '_bucket', ['le', *by])})"


# ---- Panels.

def query(expr, legend):
    return Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)


def lines(title, description, unit, *queries, stacked=False, top=None, decimals=None):
    panel = (timeseries.Panel().title(title).description(description).unit(unit).datasource(SOURCE).span(12).height(8)
             .min(0).line_width(1).fill_opacity(60 if stacked else 8)
             .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
                     .show_legend(True).calcs(["lastNotNull", "max"]))
             .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if top is not None:
        panel = panel.max(top)
    if decimals is not None:
        panel = panel.decimals(decimals)
    for expr, legend in queries:
        panel = panel.with_target(query(expr, legend))
    return panel


def bars(title, description, unit, expr, legend):
    return (bargauge.Panel().title(title).description(description).unit(unit).datasource(SOURCE).span(12).height(8)
            .with_target(query(expr, legend)))


def note(content):
    return text.Panel().title("").transparent(True).span(24).height(2).mode(TextMode.MARKDOWN).content(content)


def page(uid, title, description, *panels, variables=()):
    board = (dashboard.Dashboard(title).uid(uid).description(description).tags(["tandem"]).editable().tooltip(1)
             .refresh("10s").time("now-30m", "now")
             .link(dashboard.DashboardLink("Tandem").type(DashboardLinkType.DASHBOARDS).tags(["tandem"]).keep_time(True)
                   .include_vars(True))
             .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")))
    for variable in variables:
        board = board.with_variable(variable)
    for number, panel in enumerate([note(description), *panels], 1):
        board = board.with_panel(panel.id(number))
    return board.build()


def pool_variable():
    return (dashboard.QueryVariable("pool").label("Pool").query(f"label_values({ELAPSED}, pool)").datasource(SOURCE).multi(True)
            .include_all(True).all_value(".*").refresh(2))


# ---- The dashboards.

def overview():
    return page(
        "tandem-overview", "Tandem / Overview",
        "What the cluster serves, how long its clients wait, and where the time of its devices goes. Seconds are the devices': where "
        "they are emulated, the last panel says how many of them pass in one of the wall clock's.",
        lines("Output tokens per second", "Tokens that attention workers emitted.", "suffix: tok/s",
              (per_second("tandem_worker_tokens_total", ["model_name"]), "{{model_name}}")),
        lines("Requests per second, by HTTP status", "Finished requests. 499: the client left; 429: the queue is full.", "reqps",
              (per_second("tandem_gateway_requests_total", ["code"]), "{{code}}")),
        lines("Time to the first token", "From a request's arrival at the gateway. Half of them were faster than the median, "
              "all but one in twenty faster than p95.", "s",
              (quantile(0.5, "tandem_gateway_ttft_seconds"), "median"), (quantile(0.95, "tandem_gateway_ttft_seconds"), "p95")),
        lines("Time per further token", "The mean gap between the tokens of one answer.", "s",
              (quantile(0.5, "tandem_gateway_tpot_seconds"), "median"), (quantile(0.95, "tandem_gateway_tpot_seconds"), "p95")),
        lines("Busy share of each pool", "Computing time over elapsed time of a pool's devices. What is missing to 100 % is stall "
              "(work in flight, but waiting) or idle (nothing to do).", "percentunit",
              ("tandem:pool_occupancy:ratio_rate1m", "{{pool}} ({{memory_class}})"), top=1),
        lines("Where all device time goes", "Every second of every device, by what it did; the parts make 100 %.", "percentunit",
              *((f"""{rate(STATES, ['state', 'cause'], f'state="{state}"')} / scalar({rate(ELAPSED)})""", "{{state}} {{cause}}")
                for state in ("busy", "stall", "idle")), stacked=True, top=1),
        lines("Dollars per million tokens", "What a million tokens, in and out, cost at the present load, idle time included. "
              "Pools without a price are not in it.", "currencyUSD",
              ("sum by (pool) (tandem:dollars_per_mtok:rate5m)", "{{pool}}"), stacked=True),
        lines("KV blocks in use", "Of each attention worker. Near 100 % sequences are preempted.", "percentunit",
              ("tandem_worker_kv_cache_usage_ratio", "{{worker}}"), top=1),
        lines("Running and waiting", "Sequences that decode, and requests that wait for a placement, in the whole cluster.", "short",
              ('max by (model_name) (vllm:num_requests_running{job="tandem-gateway"})', "running"),
              ('max by (model_name) (vllm:num_requests_waiting{job="tandem-gateway"})', "waiting")),
        lines("Answers within their objectives", "Share of answers that met the gateway's objectives for the first token (ttft) and "
              "for each further one (tpot).", "percentunit",
              (f"1 - {rate('tandem_gateway_slo_missed_total', ['slo'])} / {rate('tandem_gateway_slo_judged_total', ['slo'])}",
               "{{slo}}"), top=1),
        lines("Workers by state", "As the router knows them. waiting_for_group: an attention worker without FFN workers for every "
              "layer.", "short", ("sum by (state) (tandem_router_workers)", "{{state}}"), decimals=0),
        lines("Device seconds per wall second", "1 in real time. Less: emulated devices, slowed down so that the host keeps up.",
              "short", (f"avg by (pool) (rate({ELAPSED}[$__rate_interval]))", "{{pool}}")),
    )


def stages():
    return page(
        "tandem-stages", "Tandem / Stages",
        "Why a stage is not busy. A device with several stages books its stalls and idle time under pool as a whole. Stall: handoff is "
        "the way there and back, peer_queue and peer_compute the FFN worker's, kv_transfer a prompt on its way, batch_wait a pause "
        "for more rows. Idle: starved is an FFN worker without rows while sequences live.",
        lines("Busy, by stage", "Share of the pool's time in which it computed for this stage.", "percentunit",
              (share(["pool", "stage"], 'state="busy"'), "{{pool}}: {{stage}}"), top=1),
        lines("FFN workers' busy share, and its bound", "No step is shorter than its busiest side is busy. So the attention workers' "
              "busy share bounds the FFN workers': where the bound is far below 100 %, the ratio of the two kinds is wrong; where the "
              "share is far below its bound, the hand-offs are not hidden.", "percentunit",
              ("tandem:ffn_occupancy:ratio_rate1m", "FFN"), ("tandem:ffn_occupancy_bound:ratio_rate1m", "bound of FFN"),
              ("tandem:attention_occupancy:ratio_rate1m", "attention"), top=1),
        lines("Stall, by cause", "Work is in flight, and the device waits for somebody else.", "percentunit",
              (share(["pool", "cause"], 'state="stall"'), "{{pool}}: {{cause}}"), stacked=True),
        lines("Idle, by cause", "The device has nothing to do.", "percentunit",
              (share(["pool", "cause"], 'state="idle"'), "{{pool}}: {{cause}}"), stacked=True, top=1),
        lines("Busy share of each worker", "One that is far from the others of its pool is placed badly, or broken.", "percentunit",
              (f"""{rate(STATES, ['worker'], 'state="busy", ' + POOL)} / {rate(ELAPSED, ['worker'], POOL)}""", "{{worker}}"), top=1),
        lines("Rows of a decode step", "How many sequences gain a token at once. Weights are read once a step, so this is what a step "
              "is worth.", "short",
              (f"{rate('tandem_worker_tokens_total', ['worker'], POOL)} / ({rate('tandem_worker_decode_steps_total', ['worker'], POOL)} > 0)",
               "{{worker}}"), decimals=1),
        lines("Prefill of one prompt", "Mean time from a prompt's first chunk to its last, on the worker that computes it.", "s",
              (f'{rate("vllm:request_prefill_time_seconds_sum", ["worker"])} / '
               f'({rate("vllm:request_prefill_time_seconds_count", ["worker"])} > 0)', "{{worker}}")),
        lines("Layer calls of FFN workers", "A2F calls computed per second: one for each layer, micro-batch and attention worker.",
              "suffix: calls/s",
              (per_second("tandem_worker_ffn_calls_total", ["worker"], POOL) + " > 0", "{{worker}}")),
        lines("A2F rows that wait", "At the FFN workers, for the device. A queue that only grows wants another FFN worker.", "short",
              ('sum by (worker) (tandem_worker_ffn_rows_queued{pool=~"$pool"} and on (worker) tandem_worker_ffn_streams > 0)',
               "{{worker}}")),
        lines("Hand-offs gone wrong", "FFN workers lost, and the layer calls that were sent again to another, or again to the same.",
              "short", ("sum(increase(tandem_worker_ffn_holders_lost_total[$__rate_interval]))", "FFN workers lost"),
              ("sum(increase(tandem_worker_handoff_calls_resent_total[$__rate_interval]))", "calls sent again")),
        lines("Do the books balance", "How far all states of a worker, since it started, are from what its own clock says has passed. Above "
              "0.1 % the account is wrong.", "percentunit",
              (f"abs(sum by (worker) ({STATES}) / (sum by (worker) ({ELAPSED}) > 1) - 1)", "{{worker}}"), decimals=4),
        lines("How far the host falls behind emulated devices", "Lag gained for each second of the device. Above 2 % the figures of this "
              "cluster are not the devices' any more: take a larger time scale.", "percentunit",
              ("clamp_min(max by (worker) (tandem_emulation_lag_ratio), 0)", "{{worker}}"), decimals=2),
        variables=[pool_variable()],
    )


def tco():
    baseline = (dashboard.TextBoxVariable("baseline").label("Baseline, $ per million tokens").default_value("1")
                .description("What the same tokens cost on the devices that you would use instead; `tandemctl tco` forecasts it."))
    cost = "tandem:dollars_per_mtok:rate5m"
    return page(
        "tandem-tco", "Tandem / TCO",
        "What tokens cost, how much of it buys idle devices, and whether the specialists pay. Dollars are those of device time, busy or "
        "not, of pools with a price. Set the baseline above to what the same tokens cost elsewhere (`tandemctl tco`).",
        lines("Dollars per million tokens", "In and out, each prompt once; idle time included.", "currencyUSD",
              (f"sum by (pool, state) ({cost})", "{{pool}}: {{state}}"), stacked=True),
        lines("Cost over the baseline's", "Above 1 the baseline is cheaper.", "short",
              (f"sum({cost}) / $baseline", "this cluster / baseline"), decimals=2),
        lines("Dollars per hour, by state", "What an hour of the devices costs, by what they do in it.", "currencyUSD",
              (f"3600 * {per_second('tandem_cost_dollars_total', ['state'])}", "{{state}}"), stacked=True),
        lines("Share of the cost that buys no computing", "Dollars of idle and of stalled device time, over all of the pool's.",
              "percentunit",
              (f"""{rate('tandem_cost_dollars_total', ['pool', 'state'], 'state!="busy"')} / on (pool) group_left """
               f"{rate('tandem_cost_dollars_total', ['pool'])}", "{{pool}}: {{state}}"), top=1),
        lines("SRAM pools: busy share, and where it breaks even", "At the break-even share a token costs what the baseline asks, if "
              "tokens grow with the specialists' busy time and every pool's cost by the hour stays. Above 100 %: at no load.",
              "percentunit",
              ('tandem:pool_occupancy:ratio_rate5m{memory_class="sram"}', "{{pool}}: busy"),
              (f'tandem:pool_occupancy:ratio_rate5m{{memory_class="sram"}} * scalar(sum({cost})) / $baseline', "{{pool}}: break-even")),
        lines("Tokens per second", "In: prompt tokens, each prompt once. Out: tokens emitted.", "suffix: tok/s",
              (per_second("vllm:prompt_tokens_total"), "in"), (per_second("vllm:generation_tokens_total"), "out")),
        bars("Dollars spent in the time shown", "By pool, and by what the devices did for them.", "currencyUSD",
             "sum by (pool, state) (increase(tandem_cost_dollars_total[$__range]))", "{{pool}}: {{state}}"),
        lines("Devices without a price", "Mean number of devices whose time costs nobody knows what: the figures above lack them.",
              "short", (per_second("tandem_cost_unpriced_seconds_total", ["pool"]), "{{pool}}"), decimals=1),
        variables=[baseline],
    )


def gateway():
    def quantiles(title, description, metric):
        return lines(title, description, "s", *((quantile(q, metric), name) for q, name in
                                                ((0.5, "median"), (0.9, "p90"), (0.99, "p99"))))
    return page(
        "tandem-gateway", "Tandem / Gateway",
        "What clients of the OpenAI API see. Seconds are the devices' where those are emulated.",
        lines("Requests per second", "Finished, by path and HTTP status. 499: the client left.", "reqps",
              (per_second("tandem_gateway_requests_total", ["route", "code"]), "{{route}} {{code}}")),
        lines("In flight", "Requests that wait for tokens here, and those in the router's queue.", "short",
              ("sum(tandem_gateway_requests_in_flight)", "in flight"), ("sum(tandem_router_queued_requests)", "queued at the router")),
        quantiles("Time to the first token", "From arrival to the first token: queue, prefill, KV transfer, first step.",
                  "tandem_gateway_ttft_seconds"),
        quantiles("Time per further token", "The mean gap of one answer.", "tandem_gateway_tpot_seconds"),
        quantiles("Gap between two tokens", "Each gap: a stutter that the mean hides shows here.", "tandem_gateway_itl_seconds"),
        quantiles("Whole request", "From arrival to the last byte.", "tandem_gateway_request_duration_seconds"),
        lines("Wait for a placement", "In the router's queue. It has no device: wall seconds, shown as the devices' to be compared with "
              "the rest.", "s", *((f"{quantile(q, 'tandem_router_queue_seconds')} * scalar(avg(rate({ELAPSED}[$__rate_interval])))", name)
                                  for q, name in ((0.5, "median"), (0.95, "p95")))),
        lines("Tokens per second", "Of finished requests. In: prompts; out: delivered to clients.", "suffix: tok/s",
              (per_second("tandem_gateway_prompt_tokens_total"), "in"), (per_second("tandem_gateway_generation_tokens_total"), "out")),
        lines("Answers that missed an objective", "Share of answers that took longer than the gateway's objective for the first token "
              "(ttft), or for each further one (tpot).", "percentunit",
              (f"{rate('tandem_gateway_slo_missed_total', ['slo'])} / {rate('tandem_gateway_slo_judged_total', ['slo'])}", "{{slo}}"),
              top=1),
        lines("Clients that left, tokens for nobody", "Clients that closed the connection before their answer's end, and tokens that "
              "were computed for an answer that wanted no more.", "short",
              ("sum(increase(tandem_gateway_disconnected_clients_total[$__rate_interval]))", "clients that left"),
              ("sum(increase(tandem_worker_tokens_wasted_total[$__rate_interval])) + "
               "sum(increase(tandem_gateway_wasted_tokens_total[$__rate_interval]))", "tokens for nobody")),
        lines("Answers started again elsewhere", "Because their worker sent them back (out of KV, or started anew), it was lost, or the router "
              "was. The client sees a pause, no error.", "short",
              ("sum by (cause) (increase(tandem_gateway_resumes_total[$__rate_interval]))", "{{cause}}")),
        lines("Sequences placed, by attention worker", "Uneven lines: one worker is full, or another just came back.", "suffix: seq/s",
              (per_second("tandem_router_placements_total", ["worker"]), "{{worker}}")),
    )


def files():
    for name, board in (("overview", overview()), ("stages", stages()), ("tco", tco()), ("gateway", gateway())):
        yield HERE / f"{name}.json", JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = []
    for path, content in files():
        if options.check:
            if not path.exists() or path.read_text() != content:
                stale.append(path.name)
        else:
            path.write_text(content)
    for name in stale:
        print(f"{name} is not what generate.py makes: run deploy/dashboards/generate.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
