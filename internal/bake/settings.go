// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

// A setting is one keyword of sshd_config(5) as this project wants it, and the
// OpenSSH versions that know it: one keyword too many, and sshd does not start.
type setting struct {
	keyword, value string
	since, until   target.OpenSSH // zero: always; until is the first version without it
	match          bool           // may stand in a Match block
	unit           bool           // without it no code is asked for: also given by the unit
	query          string         // how ssh -Q names its values, where that is not the keyword
	why            string
	debian         bool // a keyword that Debian has added

	// The words of the policy that it belongs to; none: all.
	root, forwarding, algorithms []string
}

// auth are the settings that decide who logs in, and how.
var auth = []setting{
	{keyword: "PubkeyAuthentication", value: "yes", match: true, unit: true},
	{keyword: "KbdInteractiveAuthentication", value: "yes", match: true, unit: true,
		why: "The PAM module asks for the code this way."},
	// An alias of the keyword above from 8.7 on; before, that one alone locks
	// everybody out.
	{keyword: "ChallengeResponseAuthentication", value: "yes", until: v(8, 7), unit: true},
	{keyword: "AuthenticationMethods", value: "publickey,keyboard-interactive", match: true, unit: true,
		why: "First the key, then the code; one alone opens nothing."},
	{keyword: "PasswordAuthentication", value: "no", match: true, unit: true},
	{keyword: "PermitEmptyPasswords", value: "no", match: true},
	{keyword: "HostbasedAuthentication", value: "no", match: true},
	{keyword: "GSSAPIAuthentication", value: "no", match: true},
	{keyword: "KerberosAuthentication", value: "no", match: true},
	{keyword: "UsePAM", value: "yes", unit: true},
	// Another service name would be another PAM file, without our line.
	{keyword: "PAMServiceName", value: "sshd", since: v(9, 8), match: true, unit: true},
	{keyword: "PermitRootLogin", value: "yes", match: true, root: []string{policy.RootAuto, policy.RootTOTP},
		why: "Root needs a key of its own and a code as everybody does, and nobody logs in\n" +
			"# who is not enrolled. prohibit-password would refuse root's right code too."},
	{keyword: "PermitRootLogin", value: "no", match: true, root: []string{policy.RootDeny}},
}

// session are limits, and what a session may do.
var session = []setting{
	{keyword: "LoginGraceTime", value: "60",
		why: "Time to find the telephone and to type the code."},
	{keyword: "MaxAuthTries", value: "6",
		why: "Each key that a client offers counts, and its ssh-agent may hold several."},
	{keyword: "MaxSessions", value: "10"},
	{keyword: "MaxStartups", value: "10:30:60"},
	{keyword: "ClientAliveInterval", value: "300"},
	{keyword: "ClientAliveCountMax", value: "3"},
	{keyword: "StrictModes", value: "yes"},
	{keyword: "IgnoreRhosts", value: "yes"},
	{keyword: "PermitUserEnvironment", value: "no"},
	{keyword: "AllowTcpForwarding", value: "no", forwarding: []string{policy.ForwardingDeny}},
	{keyword: "AllowStreamLocalForwarding", value: "no", forwarding: []string{policy.ForwardingDeny}},
	{keyword: "AllowTcpForwarding", value: "yes", forwarding: []string{policy.ForwardingAllow}},
	{keyword: "AllowStreamLocalForwarding", value: "yes", forwarding: []string{policy.ForwardingAllow}},
	{keyword: "AllowAgentForwarding", value: "no"},
	{keyword: "X11Forwarding", value: "no"},
	{keyword: "PermitTunnel", value: "no"},
	{keyword: "GatewayPorts", value: "no"},
	{keyword: "LogLevel", value: "VERBOSE", why: "Names the key of each login."},
	{keyword: "DebianBanner", value: "no", debian: true},
}

// algorithms are the names wanted, best first, of which each sshd gets those
// that it knows. They are the lists of ssh-audit's hardening guides: compatible
// that of Debian 12 with the newer key exchange ahead and the kinds and sizes of
// user keys that people have, strict that of Debian 13. The order counts, and the
// guides differ in that of the MACs.
var algorithms = []setting{
	{keyword: "KexAlgorithms", algorithms: compatible, value: quantumKex + "," +
		"curve25519-sha256,curve25519-sha256@libssh.org," +
		"diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,diffie-hellman-group-exchange-sha256"},
	{keyword: "KexAlgorithms", algorithms: strict, value: quantumKex},
	{keyword: "Ciphers", algorithms: ours, value: "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes256-ctr,aes192-ctr," +
		"aes128-gcm@openssh.com,aes128-ctr"},
	{keyword: "MACs", algorithms: compatible, until: v(10, 0), value: "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,umac-128-etm@openssh.com"},
	{keyword: "MACs", algorithms: compatible, since: v(10, 0), value: longMACs},
	{keyword: "MACs", algorithms: strict, value: longMACs},
	{keyword: "HostKeyAlgorithms", algorithms: ours, value: "sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com," +
		"rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com," +
		"sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256"},
	{keyword: "CASignatureAlgorithms", query: "sig", algorithms: compatible,
		value: "sk-ssh-ed25519@openssh.com,ssh-ed25519,sk-ecdsa-sha2-nistp256@openssh.com," +
			"ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256"},
	{keyword: "CASignatureAlgorithms", query: "sig", algorithms: strict,
		value: "sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256"},
	{keyword: "PubkeyAcceptedAlgorithms", value: userKeys, since: v(8, 5), algorithms: compatible,
		why: "The kinds of keys that people have."},
	{keyword: "PubkeyAcceptedKeyTypes", value: userKeys, until: v(8, 5), algorithms: compatible,
		why: "The kinds of keys that people have."},
	{keyword: "PubkeyAcceptedAlgorithms", value: strictKeys, since: v(8, 5), algorithms: strict},
	{keyword: "PubkeyAcceptedKeyTypes", value: strictKeys, until: v(8, 5), algorithms: strict},
	{keyword: "RequiredRSASize", value: "2048", since: v(9, 1), algorithms: compatible},
	{keyword: "RequiredRSASize", value: "3072", since: v(9, 1), algorithms: strict},
}

// hostKeys are the host keys whose kinds are offered, best first. A file that is
// not there is passed over by sshd as long as another one is.
var hostKeys = []string{target.SSHDir + "/ssh_host_ed25519_key", target.SSHDir + "/ssh_host_rsa_key"}

// The words of sshd.algorithms.
var (
	compatible = []string{policy.AlgorithmsCompatible}
	strict     = []string{policy.AlgorithmsStrict}
	ours       = []string{policy.AlgorithmsCompatible, policy.AlgorithmsStrict}
)

const (
	longMACs = "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com"

	quantumKex = "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com"

	strictKeys = "sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com," +
		"rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com," +
		"sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256"

	userKeys = "sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com," +
		"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com," +
		"ecdsa-sha2-nistp384-cert-v01@openssh.com,ecdsa-sha2-nistp521-cert-v01@openssh.com," +
		"rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com," +
		"sk-ssh-ed25519@openssh.com,ssh-ed25519,sk-ecdsa-sha2-nistp256@openssh.com," +
		"ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256"
)

func v(major, minor int) target.OpenSSH { return target.OpenSSH{Major: major, Minor: minor} }

// known picks the settings that a version of OpenSSH knows and a policy, with
// its defaults, asks for.
func known(settings []setting, version target.OpenSSH, p policy.SSHD) []setting {
	var ks []setting
	for _, s := range settings {
		if s.since != (target.OpenSSH{}) && !version.AtLeast(s.since.Major, s.since.Minor) {
			continue
		}
		if s.until != (target.OpenSSH{}) && version.AtLeast(s.until.Major, s.until.Minor) {
			continue
		}
		if named(s.root, p.RootLogin) && named(s.forwarding, p.TCPForwarding) && named(s.algorithms, p.Algorithms) {
			ks = append(ks, s)
		}
	}
	return ks
}

func named(words []string, word string) bool { return words == nil || slices.Contains(words, word) }

// allKeywords are the keywords that our file sets in one version or another, in
// lower case.
func allKeywords() map[string]bool {
	m := map[string]bool{}
	for _, list := range [][]setting{auth, session, algorithms} {
		for _, s := range list {
			m[strings.ToLower(s.keyword)] = true
		}
	}
	return m
}

// ErrAlgorithms means that this sshd knows none of the algorithms that the
// policy leaves it.
var ErrAlgorithms = errors.New("no algorithm left")

// supportedAlgorithms asks the guest's OpenSSH which of the wanted names it
// knows.
func supportedAlgorithms(ctx context.Context, t *target.Target, version target.OpenSSH, p policy.SSHD) ([]setting, error) {
	var out []setting
	for _, s := range known(algorithms, version, p) {
		if !strings.Contains(s.value, ",") {
			out = append(out, s)
			continue
		}
		b, err := t.Run(ctx, target.SSH, "-Q", cmp.Or(s.query, s.keyword))
		if err != nil {
			return nil, err
		}
		has := strings.Fields(string(b))
		want := strings.Split(s.value, ",")
		s.value = strings.Join(slices.DeleteFunc(want, func(a string) bool { return !slices.Contains(has, a) }), ",")
		if s.value == "" {
			return nil, fmt.Errorf("sshd.algorithms: %q: OpenSSH %s has no %s for it: %w; use %s",
				p.Algorithms, version, s.keyword, ErrAlgorithms, policy.AlgorithmsCompatible)
		}
		out = append(out, s)
	}
	return out, nil
}

// texts are settings as the template takes them.
func texts(settings []setting) []templates.Setting {
	var ts []templates.Setting
	for _, s := range settings {
		ts = append(ts, templates.Setting{Keyword: s.keyword, Value: s.value, Why: s.why})
	}
	return ts
}

func (f *facts) dropIn(algorithms []setting, roots []string) ([]byte, error) {
	login := f.auth()
	return templates.Render(strings.TrimPrefix(target.SSHDDropIn, "/"), templates.SSHDConfig{
		Main:       target.SSHDMain,
		Login:      target.SSHDLogin,
		System:     fmt.Sprintf("%s, OpenSSH %s", f.name, f.openSSH),
		Auth:       texts(login),
		Session:    texts(f.session()),
		Algorithms: texts(algorithms),
		Exempt:     criteria(f.policy.SSHD, roots),
		MatchAll:   texts(slices.DeleteFunc(login, func(s setting) bool { return !s.match })),
		Notice:     target.ClosedConf + " " + target.NoticeConf, // the first Banner wins
	})
}

// session are the settings of a session that this machine's sshd knows.
func (f *facts) session() []setting {
	return slices.DeleteFunc(known(session, f.openSSH, f.policy.SSHD), func(s setting) bool { return s.debian && !f.dpkg })
}

// auth are the settings that decide who logs in on this machine.
func (f *facts) auth() []setting { return known(auth, f.openSSH, f.policy.SSHD) }

// unitOptions are the settings that the unit gives to sshd as well.
func (f *facts) unitOptions() []string {
	var os []string
	for _, s := range f.auth() {
		if s.unit {
			os = append(os, s.keyword+"="+s.value)
		}
	}
	return os
}
