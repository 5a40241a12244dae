"""Certificates made while a test runs, with the openssl of the machine."""
import os
import subprocess

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True)


class Authority:
    """Issues certificates; its own files are in `folder`."""

    def __init__(self, folder, name):
        folder.mkdir()
        self.folder, self.certificate, self.key = folder, folder / "ca.crt", folder / "ca.key"
        openssl("req", "-x509", *KEY, "-subj", f"/CN={name}", "-days", 2, "-keyout", self.key, "-out", self.certificate)

    def issue(self, folder, name="tandem"):
        """Puts tls.crt, tls.key and ca.crt into `folder`; files that are there are replaced, each by a rename."""
        folder.mkdir(exist_ok=True)
        fresh = {file: folder / (file + ".new") for file in ("tls.crt", "tls.key", "ca.crt")}
        request, extensions = self.folder / "request", self.folder / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", fresh["tls.key"], "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", 1,
                "-extfile", extensions, "-out", fresh["tls.crt"])
        fresh["ca.crt"].write_bytes(self.certificate.read_bytes())
        for file, new in fresh.items():
            os.replace(new, folder / file)
        return folder


def flags(folder):
    return ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key"), "--tls-ca", str(folder / "ca.crt")]
