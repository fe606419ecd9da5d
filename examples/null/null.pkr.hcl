packer {
  required_plugins {
    totp = {
      source  = "github.com/packer-plugin-totp/totp"
      version = ">= 0.1.0"
    }
  }
}

variable "host" {
  type        = string
  description = "The machine's name or address."
}

variable "port" {
  type    = number
  default = 22
}

variable "user" {
  type        = string
  default     = "root"
  description = "Root, or a user who may use sudo without a password."
}

variable "private_key_file" {
  type = string
}

source "null" "machine" {
  ssh_host             = var.host
  ssh_port             = var.port
  ssh_username         = var.user
  ssh_private_key_file = var.private_key_file
}

build {
  sources = ["source.null.machine"]

  provisioner "totp" {
    policy_file = "${path.root}/policy.yaml"
    report      = "totp-report.json"
  }
}
