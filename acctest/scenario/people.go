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

// userData is the cloud-config for an instance of these people. It has cloud-init write
// the policy to where the agent reads it, and also asks for what must not come true:
// passwords that work over SSH.
func userData(people []*Person, token []byte) (string, error) {
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
	content, err := yaml.Marshal(policy)
	if err != nil {
		return "", err
	}
	text, err := yaml.Marshal(map[string]any{
		"users": users, "ssh_pwauth": true,
		"write_files": []writeFile{{"/var/lib/cloud/instance/totp-instance.yaml", "0600", string(content)}},
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("#cloud-config\n%s", text), nil
}
