# The user-data of one instance of a baked image, and its owner's ticket, as two
# files.

packer {
  required_plugins {
    totp = {
      source  = "github.com/packer-plugin-totp/totp"
      version = ">= 0.1.0"
    }
  }
}

variable "user" {
  type    = string
  default = "alice"
}

variable "recipient" {
  type        = string
  default     = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"
  description = "Replace it: totpctl keygen makes one."
}

variable "ssh_key" {
  type        = string
  default     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@laptop"
  description = "Replace it with the line of your .pub file."
}

data "totp-userdata" "instance" {
  user {
    name       = var.user
    recipients = [var.recipient]
    ssh_keys   = [var.ssh_key]
    sudo       = true
  }

  merge  = file("${path.root}/web.yaml")
  ticket = true

  # Where the instance runs: its size limit, and whether an image's channel brings the
  # card out there. On a plain VPS, such as hetzner, add a channel of the type
  # ssh-banner, and use a post-quantum recipient (totpctl keygen --pq).
  provider = "nocloud"
}

# Packer shows none of the three. The document alone would not do: Packer masks a
# value of many lines where it stands as a whole, and the token is in one of them.
local "user_data" {
  expression = data.totp-userdata.instance.user_data
  sensitive  = true
}

local "ticket" {
  expression = data.totp-userdata.instance.ticket
  sensitive  = true
}

local "token" {
  expression = data.totp-userdata.instance.token
  sensitive  = true
}

# With a builder of a cloud, the document is that builder's user_data; with
# QEMU, it is cd_content["user-data"] of a CD labelled cidata.
source "file" "user-data" {
  content = local.user_data
  target  = "out/user-data"
}

source "file" "ticket" {
  content = local.ticket
  target  = "out/ticket.json"
}

build {
  sources = ["source.file.user-data", "source.file.ticket"]
}
