// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
)

// Seed is what cloud-init's NoCloud datasource gives a machine.
type Seed struct {
	InstanceID string
	Hostname   string
	Keys       []string // of the provider's panel, for the default user
	UserData   string   // with its first line, "#cloud-config"
	VendorData string
}

const (
	seedDir      = "/var/lib/cloud/seed/nocloud"
	settingsFile = "/etc/cloud/cloud.cfg.d/99-lab.cfg"
)

// settings keep cloud-init away from hardware that a machine of this lab does not
// have, and from locales, which a minimal root does not have either. RSA host keys
// would take most of a first boot on a busy machine.
const settings = `datasource_list: [NoCloud, None]
network: {config: disabled}
growpart: {mode: "off"}
resize_rootfs: false
locale: false
ssh_genkeytypes: [ed25519]
`

// Insert gives the machine a seed, in place of one that it has. cloud-init reads it at
// the next boot.
func (m *Machine) Insert(s Seed) error {
	if err := m.Remove(); err != nil {
		return err
	}
	meta, err := json.Marshal(map[string]any{"instance-id": s.InstanceID, "local-hostname": s.Hostname, "public-keys": s.Keys})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.Path(seedDir), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"meta-data": string(meta), "user-data": s.UserData, "vendor-data": s.VendorData} {
		if name == "vendor-data" && text == "" {
			continue
		}
		if err := os.WriteFile(m.Path(path.Join(seedDir, name)), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the seed away: cloud-init finds no datasource at the next boot.
func (m *Machine) Remove() error {
	if err := os.RemoveAll(m.Path(seedDir)); err != nil {
		return err
	}
	err := os.WriteFile(m.Path(settingsFile), []byte(settings), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a machine without cloud-init
	}
	return err
}
