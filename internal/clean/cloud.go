// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// What cloud-init writes outside of its own directory, for one machine, and no
// version takes back: its network cards by name and address, in the words of
// whatever configures them, and what user-data said about passwords.
var (
	renderedNetwork = []string{
		"/etc/network/interfaces.d/50-cloud-init", "/etc/network/interfaces.d/50-cloud-init.cfg", "/etc/udev/rules.d/70-persistent-net.rules",
		"/etc/netplan/50-cloud-init.yaml", "/etc/systemd/network/10-cloud-init-*",
		"/etc/NetworkManager/system-connections/cloud-init-*",
	}
	renderedSSHD = []string{target.SSHDDropInDir + "/50-cloud-init.conf"}
)

// rendered removes that where cloud-init will write it anew, before the network
// is up. Where it is not there, or may not, an instance would be without.
func (c *cleaner) rendered() error {
	if !c.t.IsRegular(target.CloudInit) || c.t.Exists(target.CloudDisabled) {
		return nil
	}
	cfgs, err := cloudSettings(c.t)
	if err != nil {
		return err
	}
	patterns := slices.Concat(renderedSSHD, renderedNetwork)
	for _, cfg := range cfgs {
		if network, ok := cfg.Network.(map[string]any); ok && network["config"] == "disabled" {
			patterns = renderedSSHD
		}
	}
	return remove(patterns...)(c)
}

// A cloudSetting is what one of cloud-init's own files says, as far as this
// package wants to know.
type cloudSetting struct {
	SystemInfo struct {
		DefaultUser struct {
			Name string `yaml:"name"`
		} `yaml:"default_user"`
	} `yaml:"system_info"`
	Network any `yaml:"network"`
}

// cloudSettings are the files of the image. One that cannot be read says nothing
// to cloud-init either.
func cloudSettings(t *target.Target) ([]cloudSetting, error) {
	more, err := glob(t, target.CloudSettingsDir+"/*.cfg")
	if err != nil {
		return nil, err
	}
	var cfgs []cloudSetting
	for _, f := range append([]string{target.CloudSettings}, more...) {
		b, err := t.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var cfg cloudSetting
		if yaml.Unmarshal(b, &cfg) == nil {
			cfgs = append(cfgs, cfg)
		}
	}
	return cfgs, nil
}

// defaultUsers are the accounts that cloud-init makes without being asked.
func defaultUsers(t *target.Target) ([]string, error) {
	cfgs, err := cloudSettings(t)
	var names []string
	for _, cfg := range cfgs {
		if name := cfg.SystemInfo.DefaultUser.Name; strings.TrimSpace(name) != "" {
			names = append(names, name)
		}
	}
	return names, err
}
