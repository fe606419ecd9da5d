// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// Without dpkg's hook, as for an update from a rescue system, --force-confnew takes
// the line away that asks for the code. check says so, and the agent of the next
// boot puts it back, in the sandbox of its unit.
func TestTheNextBootRepairsPAM(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newMachineOf(t, r)
			cards := m.firstBoot()
			m.must("sh", "-euc", `rm /etc/dpkg/dpkg.cfg.d/totp-agent
apt-get -q -y --no-download -o Dpkg::Options::=--force-confask -o Dpkg::Options::=--force-confnew --reinstall install openssh-server
grep -q '^@include common-auth' /etc/pam.d/sshd`)
			pam := func() []string {
				var lines []string
				for line := range strings.Lines(m.agent("check").out) {
					if strings.Contains(line, "pam-") && !strings.Contains(line, "pam-tally-dir") {
						lines = append(lines, line)
					}
				}
				return lines
			}
			if s := m.agent("check"); s.code != 3 || pam() == nil {
				t.Errorf("check: exit %d\n%s%s", s.code, s.out, s.err)
			}

			// It is the unit that lets it: with /etc as closed as the rest, it says that it
			// cannot, and who is enrolled stays so.
			unit := m.unit("totp-agent.service")
			closed := unit
			closed.writable = nil
			if s := run(t, closed.command(m, unit.start...)); !strings.Contains(s.err, "/etc/pam.d/sshd") || pam() == nil {
				t.Errorf("without ReadWritePaths: exit %d\n%s\ncheck: %q", s.code, s.err, pam())
			}
			if s := run(t, unit.command(m, unit.start...)); s.code != 0 || !strings.Contains(s.err, "/etc/pam.d/sshd: repaired") || pam() != nil {
				t.Errorf("exit %d\n%s\ncheck: %q", s.code, s.err, pam())
			}
			if s := run(t, unit.command(m, agentPath, "check", "--repair")); s.code != 0 || s.out+s.err != "" {
				t.Errorf("again: exit %d\n%s%s", s.code, s.out, s.err)
			}

			server := m.serve(cards["alice"])
			carol := m.img.people["carol"]
			got := login.Go{}.Login(t.Context(), server, login.Try{User: "carol", Key: carol.key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{carol.password}})
			if got.Outcome != login.Refused || !strings.Contains(got.Prompts[0], "Verification code:") {
				t.Errorf("key and password: %v, prompts %q", got, got.Prompts)
			}
			if got, err := login.Enter(t.Context(), login.Go{}, server, m.account("alice", cards)); err != nil || got.Outcome != login.In {
				t.Errorf("key and code: %v, %v", got, err)
			}
		})
	}
}

// A sandbox is what a unit's file says of the files and the rights of its process.
// System calls and address families are not among it.
type sandbox struct {
	start            []string // the command
	closed, writable []string // directories that are read-only, and those below them that are not
	capabilities     []string // all that are left, in setpriv's words
}

// unit reads the sandbox of a unit of ours.
func (m *machine) unit(name string) sandbox {
	m.t.Helper()
	text, err := os.ReadFile(m.Path("/etc/systemd/system/" + name))
	if err != nil {
		m.t.Fatal(err)
	}
	var s sandbox
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key + "=" + value {
		case "ProtectSystem=strict":
			s.closed = append(s.closed, "/usr", "/boot", "/efi", "/etc", "/var", "/run", "/opt", "/srv", "/mnt", "/media")
		case "ProtectHome=read-only":
			s.closed = append(s.closed, "/home", "/root", "/run/user")
		}
		switch key {
		case "ExecStart":
			s.start = strings.Fields(value)
		case "ReadWritePaths":
			for _, p := range strings.Fields(value) {
				s.writable = append(s.writable, strings.TrimPrefix(p, "-"))
			}
		case "RuntimeDirectory":
			for _, p := range strings.Fields(value) {
				s.writable = append(s.writable, "/run/"+p)
			}
		case "CapabilityBoundingSet":
			for _, c := range strings.Fields(value) {
				s.capabilities = append(s.capabilities, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
			}
		}
	}
	if len(s.closed) != 13 || s.writable == nil || s.capabilities == nil || s.start == nil {
		m.t.Fatalf("%s has another sandbox than this test knows: %+v", name, s)
	}
	return s
}

// command is a command of the machine in that sandbox.
func (s sandbox) command(m *machine, argv ...string) *exec.Cmd {
	const script = `
for d in $1; do if [ -d $d ]; then mount --bind $d $d; mount -o remount,bind,ro $d; fi; done
for d in $2; do if [ -d $d ]; then mount --bind $d $d; mount -o remount,bind,rw $d; fi; done
capabilities=$3
shift 3
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,$capabilities "$@"`
	return m.Command(m.t.Context(), append([]string{"unshare", "--mount", "sh", "-euc", script, "sandbox",
		strings.Join(s.closed, " "), strings.Join(s.writable, " "), strings.Join(s.capabilities, ",")}, argv...)...)
}
