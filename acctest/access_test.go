// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
)

// An accessCase is an enrolled user and what may be wrong with it. The verdict of
// the agent is compared with a real login with key and code.
type accessCase struct {
	name  string
	key   string // of accessKeys; empty: ed25519
	lines string // of authorized_keys; KEY is the public key; empty: KEY
	setup string // shell, after the files are there; $u is the user, $h the home
	sshd  string // lines of a Match block for the user

	reason  access.Reason // why the agent expects no login; empty: it expects one
	unknown access.Reason // what the agent does not judge; such a row compares nothing
	not     []string      // suites on which the row has no meaning
}

var accessCases = []accessCase{
	// The account.
	{name: "plain"},
	{name: "locked", setup: "usermod -L $u"},
	{name: "no-password", setup: "usermod -p '*' $u"},
	{name: "shell-empty", setup: "usermod -s '' $u"},
	{name: "shell-nologin", setup: "usermod -s /usr/sbin/nologin $u", reason: access.ShellNoLogin},
	{name: "shell-false", setup: "usermod -s /bin/false $u", reason: access.ShellNoLogin},
	{name: "shell-true", setup: "usermod -s /bin/true $u", reason: access.ShellNoLogin},
	{name: "shell-missing", setup: "usermod -s /bin/zsh-not-here $u", reason: access.ShellMissing},
	{name: "shell-mode", setup: "cp /bin/sh /bin/sh-$u; chmod 0644 /bin/sh-$u; usermod -s /bin/sh-$u $u", reason: access.ShellMissing},
	{name: "shell-directory", setup: "usermod -s /etc $u", reason: access.ShellMissing},
	{name: "expired", setup: "chage -E 2020-01-01 $u", reason: access.AccountExpired},
	{name: "expired-1970", setup: "chage -E 0 $u", reason: access.AccountExpired},
	{name: "expires-today", setup: "chage -E $(($(date +%s) / 86400)) $u", reason: access.AccountExpired},
	{name: "expires-later", setup: "chage -E 2099-01-01 $u"},
	{name: "aged", setup: "usermod -L $u; chage -d 2020-01-01 -M 90 $u", reason: access.PasswordExpired},
	{name: "aged-inactive", setup: "usermod -L $u; chage -d 2020-01-01 -M 90 -I 5 $u", reason: access.PasswordExpired},
	{name: "aged-not-yet", setup: "chage -d $(date +%F) -M 90 $u"},
	{name: "aged-future", setup: "chage -d 2099-01-01 -M 90 $u"},
	{name: "aged-no-date", setup: "chage -M 90 -d -1 $u", unknown: access.PasswordUndated}, // expired on Debian 11 and 12,
	{name: "change", setup: "usermod -L $u; chage -d 0 $u", reason: access.PasswordChange},
	{name: "change-password", setup: "echo $u:secret | chpasswd; chage -d 0 $u", reason: access.PasswordChange},

	// The settings of sshd.
	{name: "deny-users", sshd: "DenyUsers x-deny-*", reason: access.DenyUsers},
	{name: "deny-others", sshd: "DenyUsers x-deny-other"},
	{name: "deny-host", sshd: "DenyUsers *@203.0.113.*", unknown: access.HostRule},
	{name: "deny-any-host", sshd: "DenyUsers *@*", reason: access.DenyUsers},
	{name: "allow-users", sshd: "AllowUsers alice bob", reason: access.AllowUsers},
	{name: "allow-users-in", sshd: "AllowUsers alice x-allow-users-i?"},
	{name: "allow-host", sshd: "AllowUsers x-*@127.0.0.1", unknown: access.HostRule},
	{name: "allow-negated", sshd: "AllowUsers !alice", reason: access.AllowUsers},
	{name: "deny-groups", setup: "usermod -aG audio $u", sshd: "DenyGroups aud*", reason: access.DenyGroups},
	{name: "deny-groups-out", sshd: "DenyGroups audio"},
	{name: "allow-groups", sshd: "AllowGroups audio", reason: access.AllowGroups},
	{name: "allow-groups-in", setup: "usermod -aG audio $u", sshd: "AllowGroups video audio"},
	{name: "allow-own-group", sshd: "AllowGroups x-allow-own-group"},
	{name: "refuse", sshd: "RefuseConnection yes", reason: access.RefuseConnection, not: []string{"bullseye", "bookworm"}},
	{name: "force-command", sshd: "ForceCommand /bin/date", unknown: access.ForceCommand},
	{name: "methods", sshd: "AuthenticationMethods password"}, // the block of ours wins
	{name: "pubkey-off", sshd: "PubkeyAuthentication no"},     // likewise
	{name: "keys-none", sshd: "AuthorizedKeysFile none", reason: access.KeysOff},
	{name: "keys-u", setup: "mkdir -p /etc/ssh/keys; mv $h/.ssh/authorized_keys /etc/ssh/keys/$u", sshd: "AuthorizedKeysFile /etc/ssh/keys/%u"},
	{name: "keys-h", setup: "mv $h/.ssh/authorized_keys $h/.ssh/other", sshd: "AuthorizedKeysFile %h/.ssh/other"},
	{name: "keys-relative", setup: "mv $h/.ssh/authorized_keys $h/keys", sshd: "AuthorizedKeysFile keys"},
	{name: "keys-elsewhere", sshd: "AuthorizedKeysFile /etc/ssh/no-such-keys/%u", reason: access.KeysMissing},
	{name: "keys-command", setup: "rm $h/.ssh/authorized_keys", sshd: "AuthorizedKeysCommand /bin/false\n AuthorizedKeysCommandUser nobody", unknown: access.KeysCommand},
	{name: "user-ca", setup: "rm $h/.ssh/authorized_keys; cp /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ca.pub", sshd: "TrustedUserCAKeys /etc/ssh/ca.pub", unknown: access.UserCA},
	{name: "algorithms", sshd: "PubkeyAcceptedKeyTypes ecdsa-sha2-nistp256", reason: access.KeyType},
	{name: "algorithms-rsa", key: "rsa2048", sshd: "PubkeyAcceptedKeyTypes rsa-sha2-512"},
	{name: "algorithms-rsa-not", key: "rsa2048", sshd: "PubkeyAcceptedKeyTypes ssh-ed25519", reason: access.KeyType},
	{name: "rsa-size", key: "rsa2048", sshd: "RequiredRSASize 3072", reason: access.KeyTooShort, not: []string{"bullseye"}},

	// The keys.
	{name: "ecdsa", key: "ecdsa"},
	{name: "rsa2048", key: "rsa2048"},
	{name: "rsa1024", key: "rsa1024", reason: access.KeyTooShort, not: []string{"bullseye"}}, // no RequiredRSASize there
	{name: "missing", setup: "rm $h/.ssh/authorized_keys", reason: access.KeysMissing},
	{name: "no-ssh", setup: "rm -r $h/.ssh", reason: access.KeysMissing},
	{name: "no-home", setup: "rm -r $h", reason: access.KeysMissing},
	{name: "empty", setup: ": >$h/.ssh/authorized_keys", reason: access.KeysEmpty},
	{name: "comments", lines: "# KEY\n\n", reason: access.KeysEmpty},
	{name: "garbage", lines: "-----BEGIN PUBLIC KEY-----\nabc", reason: access.KeyMalformed},
	{name: "cut", setup: `cut -c 1-50 $h/.ssh/authorized_keys >/tmp/k; cat /tmp/k >$h/.ssh/authorized_keys`, reason: access.KeyMalformed},
	{name: "bom", lines: "\xef\xbb\xbfKEY", reason: access.KeyMalformed},
	{name: "crlf", lines: "KEY\r\n"},
	{name: "indented", lines: " \t KEY"},
	{name: "second-line", lines: "garbage\n# comment\nKEY"},
	{name: "keys2", setup: "mv $h/.ssh/authorized_keys $h/.ssh/authorized_keys2"},
	{name: "certificate", lines: "CERT", reason: access.KeyCertificate},
	{name: "ca", lines: "cert-authority KEY", unknown: access.UserCA},
	{name: "forced", lines: `restrict,pty,command="/usr/bin/backup --to 'x y'" KEY`, reason: access.KeyForced}, // keys/forced.pub
	{name: "disable-root", reason: access.KeyForced,
		lines: `no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo 'Please login as the user \"debian\" rather than the user \"root\".';echo;sleep 1;exit 142" KEY`},
	{name: "forced-later", lines: "command=\"/bin/date\" OTHER\nKEY"},
	{name: "from", lines: `from="198.51.100.0/24,2001:db8::/32",no-agent-forwarding KEY`, unknown: access.KeyFrom}, // keys/from.pub
	{name: "options", lines: `restrict,pty,no-user-rc,environment="A=b" KEY`},
	{name: "option-unknown", lines: `no-such-option KEY`, reason: access.KeyOptions},
	{name: "option-restrict-no", lines: `no-restrict KEY`, reason: access.KeyOptions},
	{name: "option-unquoted", lines: `command=/bin/date KEY`, reason: access.KeyOptions},
	{name: "option-twice", lines: `command="a",command="b" KEY`, reason: access.KeyOptions},
	{name: "option-comma", lines: `pty, KEY`},
	{name: "option-open", lines: `environment="A=b KEY`, reason: access.KeyMalformed},
	{name: "option-env", lines: `environment="=b" KEY`, reason: access.KeyOptions},
	{name: "option-blank", lines: `environment="A=b c",PTY KEY`},
	{name: "option-principals", lines: `principals="x" KEY`, reason: access.KeyOptions},
	{name: "key-expired", lines: `expiry-time="20200101" KEY`, reason: access.KeyExpired},
	{name: "key-expires", lines: `expiry-time="209912312359" KEY`},
	{name: "key-expiry-odd", lines: `expiry-time="tomorrow" KEY`, reason: access.KeyOptions},

	// Modes and owners.
	{name: "mode-home", setup: "chmod 0777 $h", reason: access.KeysMode},
	{name: "mode-home-group", setup: "chmod 0770 $h"}, // Debian's sshd takes a group of one's own
	{name: "mode-home-shared", setup: "chgrp audio $h; chmod 0770 $h; usermod -aG audio bob", reason: access.KeysMode},
	{name: "mode-home-joined", setup: "chmod 0770 $h; usermod -aG $u bob", reason: access.KeysMode},
	{name: "mode-ssh", setup: "chmod 0777 $h/.ssh", reason: access.KeysMode},
	{name: "mode-file", setup: "chmod 0666 $h/.ssh/authorized_keys", reason: access.KeysMode},
	{name: "mode-file-group", setup: "chmod 0664 $h/.ssh/authorized_keys"},
	{name: "owner-file-root", setup: "chown root: $h/.ssh/authorized_keys; chmod 0644 $h/.ssh/authorized_keys"},
	{name: "owner-file-root-600", setup: "chown root: $h/.ssh/authorized_keys", reason: access.KeysUnreadable},
	{name: "owner-ssh-root", setup: "chown root: $h/.ssh", reason: access.KeysUnreadable},
	{name: "owner-file-other", setup: "chown bob $h/.ssh/authorized_keys; chmod 0644 $h/.ssh/authorized_keys", reason: access.KeysMode},
	{name: "owner-home-other", setup: "chown bob $h; chmod 0755 $h", reason: access.KeysMode},
	{name: "owner-home-root", setup: "chown root: $h; chmod 0755 $h"},
	{name: "closed-home", setup: "chmod 0600 $h", reason: access.KeysUnreadable},
	{name: "link", setup: "mv $h/.ssh/authorized_keys $h/keys; ln -s ../keys $h/.ssh/authorized_keys"},
	{name: "link-out", setup: "mkdir -p /srv/k; mv $h/.ssh/authorized_keys /srv/k/$u; ln -s /srv/k/$u $h/.ssh/authorized_keys"},
	{name: "link-loose", setup: "mkdir -p /srv/loose; chmod 0777 /srv/loose; mv $h/.ssh/authorized_keys /srv/loose/$u; ln -s /srv/loose/$u $h/.ssh/authorized_keys", reason: access.KeysMode},
	{name: "link-dangling", setup: "rm $h/.ssh/authorized_keys; ln -s /nowhere $h/.ssh/authorized_keys", reason: access.KeysMissing},
	{name: "link-home", setup: "mv $h /srv/home-$u; ln -s /srv/home-$u $h"},
	{name: "directory", setup: "rm $h/.ssh/authorized_keys; mkdir $h/.ssh/authorized_keys", reason: access.KeysUnreadable},
}

// TestVerdicts compares what the agent says about each user with what sshd and PAM
// do, both ways.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.CloudDebians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newCloudMachineOf(t, r)
			keys := accessKeys(t, m.dir)
			owner, err := newPerson(m.dir, "owner", true)
			if err != nil {
				t.Fatal(err)
			}
			var cases []accessCase
			var setup, sshd, users strings.Builder
			for _, c := range accessCases {
				if slices.Contains(c.not, r.Suite) {
					continue
				}
				c.name = "x-" + c.name
				cases = append(cases, c)
				fmt.Fprintf(&setup, "u=%s; h=/home/$u; useradd -m -s /bin/bash $u\n", c.name)
				fmt.Fprintf(&users, "  - {name: %s, recipients: [%s]}\n", c.name, owner.recipient)
				if c.sshd != "" {
					fmt.Fprintf(&sshd, "Match User %s\n %s\n", c.name, c.sshd)
				}
			}
			m.must("sh", "-euc", setup.String())
			setup.Reset()
			for _, c := range cases {
				m.authorize(c, keys)
				if c.setup != "" {
					fmt.Fprintf(&setup, "u=%s; h=/home/$u; %s\n", c.name, c.setup)
				}
			}
			m.must("sh", "-euc", setup.String())
			if err := os.WriteFile(m.Path("/etc/ssh/sshd_config.d/50-cases.conf"), []byte(sshd.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			m.instancePolicy("version: 1\nusers:\n" + users.String())
			m.ok("enroll")

			logins := m.loginChecks()
			server := m.server()
			var wg sync.WaitGroup
			running := make(chan bool, 4)
			for _, c := range cases {
				check, ok := logins[c.name]
				if !ok {
					t.Errorf("%s: the status has no verdict", c.name)
					continue
				}
				switch {
				case c.unknown != "":
					if check.Verdict != "unknown" || !check.has(c.unknown) {
						t.Errorf("%s: %+v, want unknown, %v", c.name, check, c.unknown)
					}
					continue
				case c.reason != "":
					if check.Verdict != "cannot" || !check.has(c.reason) {
						t.Errorf("%s: %+v, want cannot, %v", c.name, check, c.reason)
					}
				case check.Verdict != "can":
					t.Errorf("%s: %+v, want can", c.name, check)
				}
				running <- true
				wg.Go(func() {
					defer func() { <-running }()
					got, err := m.realLogin(server, c, keys)
					if err != nil || (got.Outcome == login.In) != (check.Verdict == "can") {
						t.Errorf("%s: the agent says %s (%+v), and the login: %v %s, %v", c.name, check.Verdict, check.Problems, got, got.Detail, err)
					}
				})
			}
			wg.Wait()
		})
	}
}

// newCloudMachineOf starts an instance of such an image, which has no datasource: the
// users are there already.
func newCloudMachineOf(t *testing.T, r rootfs.Recipe) *machine {
	t.Helper()
	m := newInstance(t, r).machine
	m.must("sh", "-euc", "mkdir -p /run/cloud-init; : >/etc/cloud/cloud-init.disabled; useradd -m alice; useradd -m bob")
	return m
}

type loginCheck struct {
	Verdict           string
	Problems, Unknown []access.Problem
}

func (l loginCheck) has(r access.Reason) bool {
	return access.Verdict{Problems: l.Problems, Unknown: l.Unknown}.Has(r)
}

// loginChecks are the verdicts of the status by user.
func (m *machine) loginChecks() map[string]loginCheck {
	m.t.Helper()
	var st struct {
		Users []struct {
			Name  string
			Login *loginCheck
		}
	}
	m.statusInto(&st)
	checks := map[string]loginCheck{}
	for _, u := range st.Users {
		if u.Login != nil {
			checks[u.Name] = *u.Login
		}
	}
	return checks
}

// accessKeys are the login keys of the cases, by name. OTHER is a key that no user
// has.
func accessKeys(t *testing.T, dir string) map[string]*login.Key {
	t.Helper()
	keys := map[string]*login.Key{}
	for name, args := range map[string][]string{
		"ed25519": {"-t", "ed25519"}, "ecdsa": {"-t", "ecdsa"}, "rsa2048": {"-t", "rsa", "-b", "2048"},
		"rsa1024": {"-t", "rsa", "-b", "1024"}, "other": {"-t", "ed25519"},
	} {
		file := filepath.Join(dir, "case-"+name)
		if out, err := exec.Command("ssh-keygen", append(args, "-q", "-N", "", "-C", "", "-f", file)...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		key, err := login.OpenKey(file)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
	}
	// The certificate of the key, signed by the other one, lies beside it.
	cert := filepath.Join(dir, "case-ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-s", filepath.Join(dir, "case-other"), "-I", "id", cert+".pub").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	b, err := os.ReadFile(cert + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	keys["cert"] = &login.Key{Public: strings.TrimSpace(string(b))}
	if err := os.Remove(cert + "-cert.pub"); err != nil { // the client would offer it
		t.Fatal(err)
	}
	return keys
}

func (c accessCase) keyOf(keys map[string]*login.Key) *login.Key {
	if c.key == "" {
		return keys["ed25519"]
	}
	return keys[c.key]
}

// authorize writes the user's authorized_keys.
func (m *machine) authorize(c accessCase, keys map[string]*login.Key) {
	m.t.Helper()
	lines := c.lines
	if lines == "" {
		lines = "KEY"
	}
	lines = strings.NewReplacer("KEY", c.keyOf(keys).Public, "OTHER", keys["other"].Public, "CERT", keys["cert"].Public).Replace(lines)
	if !strings.HasSuffix(lines, "\n") {
		lines += "\n"
	}
	if err := m.AddUser(m.t.Context(), rootfs.User{Name: c.name}); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.Path("/home/"+c.name+"/.ssh/authorized_keys"), []byte(lines), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// realLogin logs in with the key and a code of the PAM state file.
func (m *machine) realLogin(s login.Server, c accessCase, keys map[string]*login.Key) (login.Result, error) {
	b, err := os.ReadFile(m.Path(pamStates + "/" + c.name))
	if err != nil {
		return login.Result{}, err
	}
	secret, _, _ := strings.Cut(string(b), "\n")
	codes, _ := m.codes.LoadOrStore(secret, login.NewCodes(secret, nil))
	return login.Enter(m.t.Context(), login.OpenSSH{Dir: m.dir}, s,
		login.Account{User: c.name, Key: c.keyOf(keys), Codes: codes.(*login.Codes)})
}
