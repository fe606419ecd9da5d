# A Debian image whose instances demand an SSH key and a one-time code.

packer {
  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = ">= 1.0.9"
    }
    totp = {
      source  = "github.com/packer-plugin-totp/totp"
      version = ">= 0.1.0"
    }
  }
}

variable "base_image" {
  type        = string
  default     = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
  description = "A Debian 12 disk image with cloud-init: a URL or a file."
}

variable "base_checksum" {
  type        = string
  default     = "file:https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
  description = "The checksum of the base image, or none for a file of your own."
}

variable "build_key" {
  type        = string
  description = "A private SSH key for this build, with its .pub beside it: ssh-keygen -t ed25519 -N '' -f build_key"
}

variable "issuer" {
  type        = string
  default     = "Example Hosting"
  description = "The name that the authenticator app shows."
}

variable "recipients" {
  type        = map(list(string))
  default     = {}
  description = "Who is enrolled on every instance of this image, and the age recipients of their cards. Usually each instance's user-data says that."
}

variable "output_directory" {
  type    = string
  default = "out"
}

variable "image_name" {
  type        = string
  default     = "debian-12-totp"
  description = "The image's file in the output directory, without .qcow2. For Debian 11 or 13 give base_image and base_checksum as well."
}

variable "report" {
  type        = string
  default     = "totp-report.json"
  description = "A file for what was baked."
}

variable "accelerator" {
  type        = string
  default     = "kvm"
  description = "none runs everywhere, and takes minutes longer."
}

variable "cpu_model" {
  type    = string
  default = "host"
}

variable "cpus" {
  type    = number
  default = 2
}

variable "kernel" {
  type        = string
  default     = ""
  description = "For a base image without a boot loader: its kernel."
}

variable "initrd" {
  type        = string
  default     = ""
  description = "The initial RAM disk that belongs to the kernel."
}

variable "kernel_args" {
  type    = string
  default = "root=/dev/vda rw console=ttyS0"
}

variable "console_log" {
  type        = string
  default     = ""
  description = "A file for what the machine says on its serial console during the build."
}

variable "shutdown_command" {
  type        = string
  default     = "sudo shutdown -P now"
  description = "Empty pulls the plug, and the image is cleaned at its first boot."
}

locals {
  # The user that Packer logs in as exists during the build only.
  user_data = {
    users = [{
      name                = "packer"
      shell               = "/bin/bash"
      sudo                = "ALL=(ALL) NOPASSWD:ALL"
      lock_passwd         = true
      ssh_authorized_keys = [trimspace(file("${var.build_key}.pub"))]
    }]
  }
}

source "qemu" "debian" {
  iso_url          = var.base_image
  iso_checksum     = var.base_checksum
  disk_image       = true
  skip_resize_disk = true
  skip_compaction  = true
  format           = "qcow2"
  output_directory = var.output_directory
  vm_name          = "${var.image_name}.qcow2"

  accelerator    = var.accelerator
  machine_type   = "pc" # Debian's kernel for clouds has no driver for q35's CD drive
  cpu_model      = var.cpu_model
  cpus           = var.cpus
  memory         = 1024
  disk_interface = "virtio"
  net_device     = "virtio-net"
  headless       = true
  boot_wait      = "1s"
  qemuargs = concat(
    var.kernel == "" ? [] : [["-kernel", var.kernel], ["-initrd", var.initrd], ["-append", var.kernel_args]],
    var.console_log == "" ? [] : [["-serial", "file:${var.console_log}"]],
  )

  # The machine's first boot takes its user and key from this CD (NoCloud).
  cd_label = "cidata"
  cd_content = {
    "meta-data" = "instance-id: packer-build\nlocal-hostname: packer-build\n"
    "user-data" = "#cloud-config\n${yamlencode(local.user_data)}"
  }

  communicator           = "ssh"
  ssh_username           = "packer"
  ssh_private_key_file   = var.build_key
  ssh_timeout            = "10m"
  ssh_handshake_attempts = 200

  # The build's account, its key and what else belongs to this machine go while
  # it shuts down.
  shutdown_command = var.shutdown_command
  shutdown_timeout = "5m"
}

build {
  sources = ["source.qemu.debian"]

  provisioner "totp" {
    issuer = var.issuer
    report = var.report

    # User-data may say the policy under a key "totp" as well.
    cloud_init_module = true

    clean {
      build_user = "packer"
    }

    # The default: the host's virtio port answers, so that the envelope is known
    # to have arrived; console and file are there for the day it does not.
    channel {
      type = "virtio"
      port = "org.totp.enroll.0"
    }
    channel {
      type = "console"
    }
    channel {
      type = "file"
    }

    dynamic "user" {
      for_each = var.recipients
      content {
        name       = user.key
        recipients = user.value
      }
    }
  }
}
