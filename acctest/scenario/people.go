// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
)

// Person is somebody with an account on an instance.
type Person struct {
	Name      string
	Key       *login.Key
	Password  string // of the account; sshd must not take it
	Identity  string // file that opens envelopes; empty for who is not enrolled
	Recipient string
}

// Enrolled reports whether user-data names a recipient for the person.
func (p *Person) Enrolled() bool { return p.Recipient != "" }

// People makes three persons with login keys: Alice and Bob, who are enrolled,
// and Carol, who is not.
func (l *Lab) People(ctx context.Context) ([]*Person, error) {
	dir, err := os.MkdirTemp(l.Work, "owners-")
	if err != nil {
		return nil, err
	}
	var people []*Person
	for _, name := range []string{"alice", "bob", "carol"} {
		p := &Person{Name: name, Password: rand.Text()}
		if p.Key, err = login.NewKey(dir, name+"_key"); err != nil {
			return nil, err
		}
		people = append(people, p)
		if name == "carol" {
			continue
		}
		p.Identity = filepath.Join(dir, name+"_identity.txt")
		out, err := output(ctx, dir, l.totpctl, "keygen", "-o", p.Identity)
		if err != nil {
			return nil, err
		}
		p.Recipient = strings.TrimSpace(string(out))
	}
	return people, nil
}

type cloudUser struct {
	Name     string   `yaml:"name"`
	Shell    string   `yaml:"shell"`
	Sudo     string   `yaml:"sudo,omitempty"`
	Password string   `yaml:"plain_text_passwd"`
	Lock     bool     `yaml:"lock_passwd"`
	Keys     []string `yaml:"ssh_authorized_keys"`
}

type writeFile struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions"`
	Content     string `yaml:"content"`
}

type instanceUser struct {
	Name       string   `yaml:"name"`
	Recipients []string `yaml:"recipients"`
}

// layer is the instance's part of the policy.
type layer struct {
	Version int            `yaml:"version"`
	Token   string         `yaml:"token"`
	Users   []instanceUser `yaml:"users"`
}

// userData is the cloud-config for an instance of these people. It also asks
// for what must not come true: passwords that work over SSH. say puts the policy
// into it.
func userData(people []*Person, token []byte, say func(config map[string]any, policy layer) error) (string, error) {
	var users []cloudUser
	policy := layer{Version: 1, Token: base64.RawURLEncoding.EncodeToString(token)}
	for i, p := range people {
		u := cloudUser{Name: p.Name, Shell: "/bin/bash", Password: p.Password, Keys: []string{p.Key.Public}}
		if i == 0 {
			u.Sudo = "ALL=(ALL) NOPASSWD:ALL"
		}
		users = append(users, u)
		if p.Enrolled() {
			policy.Users = append(policy.Users, instanceUser{p.Name, []string{p.Recipient}})
		}
	}
	config := map[string]any{"users": users, "ssh_pwauth": true}
	if err := say(config, policy); err != nil {
		return "", err
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("#cloud-config\n%s", text), nil
}

// byFile has cloud-init write the policy to where the agent reads it.
func byFile(config map[string]any, policy layer) error {
	content, err := yaml.Marshal(policy)
	config["write_files"] = []writeFile{{"/var/lib/cloud/instance/totp-instance.yaml", "0600", string(content)}}
	return err
}

// Absent is a user whom a policy can name and who has no account.
const Absent = "ghost"

// byFileWithAbsent is byFile, of a policy that names [Absent] as well.
func byFileWithAbsent(config map[string]any, policy layer) error {
	policy.Users = append(policy.Users, instanceUser{Absent, policy.Users[0].Recipients})
	return byFile(config, policy)
}

// byNobody says no policy at all.
func byNobody(map[string]any, layer) error { return nil }

// byKeyWhileBusy is byKey, and has the first tries of cloud-init's module and of the
// agent take longer than their units let them, as on a host that is too busy. The
// pauses have the module come again when the agent's time is up, too.
func byKeyWhileBusy(config map[string]any, policy layer) error {
	config["bootcmd"] = []string{`for unit in totp-module totp-agent; do
	mkdir -p /run/systemd/system/$unit.service.d
	cat >/run/systemd/system/$unit.service.d/busy.conf <<'EOF'
[Service]
ExecStartPre=/bin/sh -c "[ -e /run/%N.tried ] || { touch /run/%N.tried; exec sleep 300; }"
TimeoutStartSec=15
RestartSec=20
EOF
done
systemctl daemon-reload`}
	return byKey(config, policy)
}

// byKey leaves it to cloud-init's module that the image has.
func byKey(config map[string]any, policy layer) error {
	config["totp"] = policy
	return nil
}
