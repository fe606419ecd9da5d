"""Calls cloud-init's module in each way that cloud-init does, and with each fault
that there can be. None may come out of it."""

import json
import logging
import os
import stat
import sys
import tempfile

import cc_totp

FILES = {
    "cloud_config": "cloud-config.txt",
    "vendor_cloud_config": "vendor-cloud-config.txt",
    "vendor2_cloud_config": "vendor2-cloud-config.txt",
}
DIR = tempfile.mkdtemp()
TAKEN = os.path.join(DIR, "taken")
SAID = []


class Cloud:
    """What of cloud-init's cloud the module uses."""

    def __init__(self, **files):
        for name, file in FILES.items():
            path = os.path.join(DIR, file)
            if os.path.exists(path):
                os.remove(path)
            if name in files:
                with open(path, "wb") as f:
                    f.write(files[name])

    def get_ipath(self, name):
        return os.path.join(DIR, FILES[name])

    def get_instance_id(self):
        return "i-1"


class Broken(Cloud):
    def get_ipath(self, name):
        raise RuntimeError("SECRET")


class Nowhere(Cloud):
    def get_ipath(self, name):
        return None


class Catch(logging.Handler):
    def emit(self, record):
        SAID.append(record.getMessage())


def agent(script):
    path = os.path.join(DIR, "agent")
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + script)
    os.chmod(path, stat.S_IRWXU)
    cc_totp.AGENT = path


def call(cloud, keywords=False):
    """Return what was handed over, and what was said."""
    del SAID[:]
    if os.path.exists(TAKEN):
        os.remove(TAKEN)
    if keywords:
        cc_totp.handle(name="totp", cfg={}, cloud=cloud, args=[])
    else:
        cc_totp.handle("totp", {}, cloud, logging.getLogger("x"), [])
    if not os.path.exists(TAKEN):
        return None, SAID
    with open(TAKEN, encoding="utf-8") as f:
        return json.load(f), SAID


def check(what, got, want):
    if got != want:
        sys.exit("%s: got %r, want %r" % (what, got, want))


logging.getLogger("cc_totp").addHandler(Catch())
good = 'cat >"%s"; test "$1" = layer\n' % TAKEN
agent(good)

user = b"#cloud-config\ntotp:\n  version: 1\n  issuer: M\xc3\xbcller\n"
want = {"instance_id": "i-1", "instance": {"version": 1, "issuer": "M\u00fcller"}}
for way in (False, True):
    check("user-data", call(Cloud(cloud_config=user), way), (want, []))
check("no file", call(Cloud()), ({"instance_id": "i-1"}, []))
check("no path", call(Nowhere()), ({"instance_id": "i-1"}, []))
check("no key", call(Cloud(cloud_config=b"users: []\n")), ({"instance_id": "i-1"}, []))
check("an empty key", call(Cloud(cloud_config=b"totp:\n")), ({"instance_id": "i-1", "instance": None}, []))
check("no mapping", call(Cloud(cloud_config=b"- totp\n")), ({"instance_id": "i-1"}, []))
check(
    "both of the vendor's",
    call(Cloud(vendor_cloud_config=b"totp: 1\n", vendor2_cloud_config=b"totp: 2\n", cloud_config=b"totp: 3\n")),
    ({"instance_id": "i-1", "vendor": 2, "instance": 3}, []),
)
check(
    "what JSON has no word for",
    call(Cloud(cloud_config=b"totp: {2: 2020-01-01, true: !!binary YQ==}\n")),
    ({"instance_id": "i-1", "instance": {"2": "2020-01-01", "true": "b'a'"}}, []),
)

lost = "totp: not handed over: "
for what, fault, text in (
    ("not YAML", "ParserError", b"totp: [SECRET\n"),
    ("not UTF-8", "UnicodeDecodeError", b"totp: \xff\n"),
    ("a tag", "ConstructorError", b"totp: !!python/name:os.system SECRET\n"),
    ("in itself", "ValueError", b"totp: &a [*a]\n"),
    ("too deep", "RecursionError", b"totp: " + b"[" * 5000 + b"]" * 5000),
):
    check(what, call(Cloud(cloud_config=text)), (None, [lost + fault]))
check("no paths", call(Broken()), (None, [lost + "RuntimeError"]))
check("no cloud", call(None), (None, [lost + "AttributeError"]))

agent("exit 2\n")
check("refused", call(Cloud(cloud_config=user)), (None, ["totp: refused; see: totp-agent status"]))
agent("exec sleep 60\n")
cc_totp.PATIENCE = 0.1
check("an agent that hangs", call(Cloud(cloud_config=user)), (None, [lost + "TimeoutExpired"]))
cc_totp.AGENT = os.path.join(DIR, "nothing")
check("no agent", call(Cloud(cloud_config=user)), (None, [lost + "FileNotFoundError"]))

cc_totp.handle()
cc_totp.handle(1, 2, 3, 4, 5, 6, 7)
print("%d.%d ok" % sys.version_info[:2])
