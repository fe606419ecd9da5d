# Copyright the packer-plugin-totp authors
# SPDX-License-Identifier: MPL-2.0
"""The cloud-init module "totp".

It hands the key "totp" of user-data and vendor-data to totp-agent, which
checks it as it checks a layer that write_files has written. One file serves
cloud-init 20.4 to 26. No fault in here stops a stage of cloud-init: it is
logged, and sshd stays closed to those who are not enrolled.

Install it, as root, on a machine that totp-agent is baked into:

    totpctl module >/usr/lib/python3/dist-packages/cc_totp.py
    totpctl module --unit >/etc/systemd/system/totp-module.service
    systemctl enable totp-module.service

or set cloud_init_module = true in the Packer template, which does the same.
"""

import json
import logging
import os
import subprocess

import yaml

AGENT = "{{Program}}"
PATIENCE = 10  # seconds; the agent needs some milliseconds

# Up to cloud-init 22.1 a module says by these names what it is, since 22.2 by
# meta. It must have no schema of its own.
frequency = "always"
distros = ["all"]
meta = {
    "id": "cc_totp",
    "name": "TOTP",
    "title": "Enroll users for SSH logins with one-time codes",
    "description": "Hands the key totp to totp-agent.",
    "distros": distros,
    "frequency": frequency,
    "examples": [],
    "activate_by_schema_keys": ["totp"],
}

LOG = logging.getLogger(__name__)

# cloud-init's own copies of what each side has written for this instance, the
# one that wins last. The merged configuration would not tell the sides apart,
# and a provider must not have the owner's rights.
LAYERS = (
    ("vendor", ("vendor_cloud_config", "vendor2_cloud_config")),
    ("instance", ("cloud_config",)),
)


def handle(*pos, **kw):
    """Cloud-init calls this by position up to 23.1, and by keyword since."""
    try:
        given = dict(zip(("name", "cfg", "cloud", "log", "args"), pos))
        given.update(kw)
        hand_over(given["cloud"])
    except Exception as fault:
        # Its name alone: the text of a fault can quote user-data.
        LOG.warning("totp: not handed over: %s", type(fault).__name__)


def hand_over(cloud):
    """Give the agent what there is, in one JSON object."""
    found = {}
    for layer, names in LAYERS:
        for name in names:
            config = read(cloud.get_ipath(name))
            if isinstance(config, dict) and "totp" in config:
                found[layer] = config["totp"]
    found["instance_id"] = str(cloud.get_instance_id())
    text = json.dumps(found, ensure_ascii=False, default=str)
    done = subprocess.run(
        [AGENT, "layer"],
        input=text.encode("utf-8", "replace"),
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        LOG.warning("totp: refused; see: totp-agent status")


def read(path):
    """Return the cloud-config in a file, None where there is none."""
    if not path or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as f:
        return yaml.safe_load(f)
