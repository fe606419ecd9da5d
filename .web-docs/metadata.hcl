# For full specification on the configuration of this file visit:
# https://github.com/hashicorp/integration-template#metadata-configuration
integration {
  name        = "TOTP"
  description = "Bakes VPS images that demand an SSH key and a one-time code from their first boot on, with a secret of its own for every server, sealed to its owner."
  identifier  = "packer/packer-plugin-totp/totp"
  component {
    type = "provisioner"
    name = "TOTP"
    slug = "totp"
  }
  component {
    type = "data-source"
    name = "TOTP user-data"
    slug = "userdata"
  }
}
