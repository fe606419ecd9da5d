// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
)

// What the bake leaves passes its own test, on every system that is proven; the
// test changes no file but the report, and that once.
func TestSelfTestPasses(t *testing.T) {
	for _, recipe := range rootfs.Debians {
		t.Run(recipe.Name, func(t *testing.T) {
			t.Parallel()
			m := newMachineOf(t, recipe)
			// As clean leaves an image.
			m.must("sh", "-c", "rm -f /etc/ssh/ssh_host_*")
			const report = "/var/lib/totp-agent/report.json"
			before := snapshot(t, m.Dir())
			start := time.Now()
			s := m.ok("selftest")
			took := time.Since(start)
			t.Logf("%v\n%s", took, s.err)
			for name, r := range m.selfTestRows() {
				if !r.OK {
					t.Errorf("%s: %+v", name, r)
				}
			}
			after := snapshot(t, m.Dir())
			if got := changed(before, after); !slices.Equal(got, []string{report}) {
				t.Errorf("changed: %q, want the report alone", got)
			}
			// What takes its time takes it in every run; what else the machine does, not.
			for run := 0; run == 0 || took > 15*time.Second && run < 4; run++ {
				start = time.Now()
				m.ok("selftest")
				took = min(took, time.Since(start))
			}
			if took > 15*time.Second {
				t.Errorf("took %v, want 15 s at most", took)
			}
			if got := changed(after, snapshot(t, m.Dir())); len(got) > 0 {
				t.Errorf("a second run has changed %q", got)
			}
			if got := m.leftovers(); got != "" {
				t.Errorf("left running: %q", got)
			}
		})
	}
}

// selfTestRows are the rows in the machine's report.
func (m *machine) selfTestRows() map[string]bake.SelfTestRow {
	m.t.Helper()
	var r bake.Report
	if err := json.Unmarshal([]byte(m.must("cat", "/var/lib/totp-agent/report.json")), &r); err != nil {
		m.t.Fatal(err)
	}
	rows := map[string]bake.SelfTestRow{}
	for _, row := range r.SelfTest {
		if _, twice := rows[row.Name]; twice {
			m.t.Errorf("two rows %q", row.Name)
		}
		rows[row.Name] = row
	}
	if len(rows) < 20 {
		m.t.Errorf("%d rows in the report: %q", len(rows), slices.Sorted(maps.Keys(rows)))
	}
	return rows
}

// leftovers are processes and mounts that a self-test would have.
func (m *machine) leftovers() string {
	m.t.Helper()
	return m.must("sh", "-c", `
		for p in /proc/[0-9]*; do
			c=$(tr '\0' ' ' <$p/cmdline 2>/dev/null) || continue
			case $c in *selftest*|*sshd*) [ ${p#/proc/} = $$ ] || echo "$c";; esac
		done
		grep selftest /proc/self/mountinfo || true`)
}

// Bakes that are broken in ways that let somebody in, or nobody: each turns the
// row red that is about it.
func TestSelfTestSeesABrokenBake(t *testing.T) {
	t.Parallel()
	const (
		pam    = "/etc/pam.d/sshd"
		dropIn = "/etc/ssh/sshd_config.d/00-00-totp.conf /etc/ssh/sshd_totp_login.conf" // copies
		unit   = "/etc/systemd/system/ssh.service.d/00-totp.conf"
		openUp = "AuthenticationMethods publickey\n"
	)
	for _, c := range []struct {
		name, script string
		rows         map[string]string // name → part of what is seen
	}{
		{"PAM line removed", `sed -i /pam_google/d ` + pam,
			map[string]string{"key and code": "code refused", "PAM service": "pam-block"}},
		{"nullok", `sed -i '/pam_google/s/$/ nullok/' ` + pam,
			// Without pam_permit nobody gets in by it, but nobody is asked, either.
			map[string]string{"unenrolled user": "keyboard-interactive; code refused", "PAM service": "pam-nullok"}},
		{"nullok and pam_permit", `sed -i '/pam_google/{s/$/ nullok/;a auth required pam_permit.so
			}' ` + pam,
			map[string]string{"unenrolled user": "keyboard-interactive; in"}},
		{"pam_permit in its place", `sed -i '/pam_google/c auth required pam_permit.so' ` + pam,
			map[string]string{"wrong code": "; in", "root, wrong code": "; in", "same code again": "; in", "unenrolled user": "; in"}},
		{"sufficient", `sed -i '/pam_google/s/requisite/sufficient/' ` + pam,
			// By itself it lets nobody in; what comes after it would.
			map[string]string{"PAM service": "pam-block"}},
		{"sufficient and pam_permit", `sed -i '/pam_google/{s/requisite/sufficient/;a auth required pam_permit.so
			}' ` + pam,
			map[string]string{"wrong code": "; in", "same backup code again": "; in"}},
		{"sufficient and common-auth", `sed -i '/pam_google/{s/requisite/sufficient/;a @include common-auth
			}' ` + pam,
			map[string]string{"password for a code": "; in", "wrong code": `asks "Password: "`}},
		{"common-auth put back", `sed -i '/pam_google/c @include common-auth' ` + pam,
			map[string]string{"password for a code": "; in", "key and code": `asks "Password: "`}},
		{"a late Match", `sed -i '/^Match all/,$d' ` + dropIn + `; sed -i '/-o/d' ` + unit + `
			printf 'Match User *\n\t` + openUp + `' >/etc/ssh/sshd_config.d/99-late.conf; echo 'ExecStart=/usr/sbin/sshd -D -o MaxSessions=10' >>` + unit,
			map[string]string{"key alone": "; in", "root, key alone": "; in", "key alone, without the unit's options": "; in"}},
		{"a late Match, the unit as it was", `sed -i '/^Match all/,$d' ` + dropIn + `
			printf 'Match all\n\t` + openUp + `' >/etc/ssh/sshd_config.d/99-late.conf`,
			map[string]string{"key alone": "; in", "unenrolled user, key alone": "; in"}},
		{"UsePAM no", `sed -i 's/UsePAM yes/UsePAM no/' ` + dropIn + `; sed -i 's/UsePAM=yes/UsePAM=no/' ` + unit,
			map[string]string{"key and code": "refused", "root, key and code": "refused"}},
		{"UsePAM no in the file alone", `sed -i 's/UsePAM yes/UsePAM no/' ` + dropIn,
			map[string]string{"key and code, without the unit's options": "refused"}},
		{"passwords", `sed -i 's/PasswordAuthentication no/PasswordAuthentication yes/; s/publickey,keyboard-interactive/password &/' ` + dropIn + `
			sed -i 's/PasswordAuthentication=no/PasswordAuthentication=yes/; s/-o AuthenticationMethods=[^ ]*//' ` + unit + `; sed -i '/pam_google/c @include common-auth' ` + pam,
			map[string]string{"password alone": "; in"}},
		{"state directory of somebody else", `chown daemon /var/lib/google-authenticator`,
			map[string]string{"state directory": "1:0, 0700"}},
		{"state directory open", `chmod 0777 /var/lib/google-authenticator`,
			map[string]string{"state directory": "0777"}},
		{"module gone", `rm $(find /lib /usr/lib -name pam_google_authenticator.so)`,
			map[string]string{"key and code": "refused", "PAM service": "pam-module"}},
		{"sshd does not start", `echo 'NoSuchKeyword yes' >/etc/ssh/sshd_config.d/99-bad.conf`,
			map[string]string{"sshd": "does not start"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.must("sh", "-euc", c.script)
			s := run(t, m.Command(t.Context(), agentPath, "selftest", "--json"))
			if s.code != 1 {
				t.Fatalf("exit %d, want 1\n%s", s.code, s.err)
			}
			var rows []struct {
				bake.SelfTestRow
				Log []string
			}
			if err := json.Unmarshal([]byte(s.out), &rows); err != nil {
				t.Fatalf("%v\n%s", err, s.out)
			}
			left := maps.Clone(c.rows)
			for _, r := range rows {
				seen, ok := c.rows[r.Name]
				if !ok {
					continue
				}
				delete(left, r.Name)
				if r.OK || !strings.Contains(r.Seen, seen) {
					t.Errorf("%s: ok %v, saw %q, want %q", r.Name, r.OK, r.Seen, seen)
				}
				if !strings.Contains(s.err, fmt.Sprintf("FAILED: %s ", r.Name)) || !strings.Contains(s.err, "expected: "+r.Expected) {
					t.Errorf("%s: is not told", r.Name)
				}
				if strings.Contains(r.Expected, "wants") && len(r.Log) == 0 {
					t.Errorf("%s: no line of sshd's log", r.Name)
				}
			}
			if len(left) > 0 {
				t.Errorf("no rows %v", left)
			}
			if t.Failed() {
				t.Logf("%s", s.err)
			}
		})
	}
}

// Whoever is exempt logs in with the key alone, and nobody else does.
func TestSelfTestOfExemptions(t *testing.T) {
	for _, recipe := range rootfs.Debians {
		t.Run(recipe.Name, func(t *testing.T) {
			t.Parallel()
			m := newGuestOf(t, recipe)
			algorithms := "strict"
			if recipe.Suite == rootfs.Debian11.Suite { // it has none of those
				algorithms = "compatible"
			}
			policy := m.img.policy + "sshd:\n  algorithms: " + algorithms + "\n  root_login: deny\n" +
				"  exempt_users: [carol, robot]\n  exempt_groups: [machines, users]\n" +
				"  exempt_from: [10.20.0.0/16, 172.16.0.0/12, \"fd00:1::/64\"]\nrate_limit: strict\n"
			if _, err := bakeRoot(t.Context(), m.Root, policy); err != nil {
				t.Fatal(err)
			}
			s := m.ok("selftest")
			t.Logf("%s", s.err)
			rows := m.selfTestRows()
			for _, name := range []string{"exempt user carol", "exempt user robot", "exempt group machines", "exempt group users",
				"exempt from 10.20.0.0/16", "exempt from 172.16.0.0/12", "exempt from fd00:1::/64"} {
				if r := rows[name]; !r.OK || r.Seen != "wants publickey; in" {
					t.Errorf("%s: %+v", name, r)
				}
			}
			if r := rows["root, key alone"]; !strings.Contains(r.Seen, "key refused") {
				t.Errorf("root: %+v", r)
			}
			// An exemption that does not work is seen, and so is one that works for all.
			m.must("sed", "-i", "s/^Match Group machines,users.*/Match Group nobodys/", "/etc/ssh/sshd_totp_login.conf")
			s = m.agent("selftest")
			if s.code != 1 || !strings.Contains(s.err, "FAILED: exempt group machines") {
				t.Errorf("exit %d\n%s", s.code, s.err)
			}
		})
	}
}

// A self-test that is killed leaves nothing, whenever that is.
func TestSelfTestKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := snapshot(t, m.Dir())
	for _, after := range []string{"0.00", "0.01", "0.03", "0.06", "0.1", "0.2", "0.3", "0.4", "0.5", "0.7", "0.9"} {
		out := m.must("sh", "-c", agentPath+` selftest 2>/run/said & p=$!; sleep `+after+`; kill -9 $p; wait $p; r=$?; sleep 0.2; echo $r; rm -f /run/said`)
		if got := m.leftovers(); got != "" {
			t.Errorf("after %s s: left %q", after, got)
		}
		got := changed(before, snapshot(t, m.Dir()))
		if strings.TrimSpace(out) == "0" {
			got = slices.DeleteFunc(got, func(name string) bool { return name == "/var/lib/totp-agent/report.json" })
		}
		if len(got) > 0 {
			t.Errorf("after %s s (status %s): changed %q", after, strings.TrimSpace(out), got)
		}
		if strings.TrimSpace(out) == "0" {
			break // it was through
		}
	}
	m.ok("selftest")
}

// What is only for the self-test's own process refuses to be called by others.
func TestSelfTestInsideRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.Command(t.Context(), agentPath, "selftest", "inside")
	cmd.Stdin = strings.NewReader("{}\n")
	if s := run(t, cmd); s.code != 1 || !strings.Contains(s.err, "totp-agent selftest") {
		t.Errorf("exit %d: %s", s.code, s.err)
	}
	// One that is not baked.
	m.must("rm", "/etc/totp-agent/image.yaml")
	if s := m.agent("selftest"); s.code != 1 || !strings.Contains(s.err, "not baked") {
		t.Errorf("exit %d: %s", s.code, s.err)
	}
}

// Only a system that is proven may do without.
func TestSelfTestSkipped(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if s := m.ok("selftest", "--skip"); strings.Contains(s.err, "rows") || !strings.Contains(s.err, "left out") {
		t.Errorf("on a proven system: %s", s.err)
	}
	for _, support := range []string{`"support": "untested"`, `"support": "allowed"`, `"support": ""`, `"no": ""`} {
		m.must("sed", "-i", `s/"\(support\|no\)": "[a-z]*"/`+support+`/`, "/var/lib/totp-agent/report.json")
		if s := m.ok("selftest", "--skip"); !strings.Contains(s.err, "20 rows as expected") {
			t.Errorf("%s: %s", support, s.err)
		}
		m.must("cp", "/var/lib/totp-agent/report.json", "/root/report")
	}
}

// What an image has of its own does not make the self-test cry wolf.
func TestSelfTestWithSettingsOfTheImage(t *testing.T) {
	t.Parallel()
	const late = "/etc/ssh/sshd_config.d/60-own.conf"
	for name, c := range map[string]struct {
		script string
		rows   int
	}{
		"groups and keys elsewhere": {`mkdir -m 0755 /etc/ssh/keys; printf 'AllowGroups sudo\nAuthorizedKeysFile /etc/ssh/keys/%%u\n' >` + late, 17},
		"users":                     {`printf 'AllowUsers alice bob\n' >` + late, 17},
		"options of the unit":       {`echo 'SSHD_OPTS="-4 -o MaxSessions=3"' >/etc/default/ssh`, 20},
		"listens elsewhere":         {`printf 'ListenAddress fd00:5::1\nPort 2200\nAddressFamily inet6\n' >` + late, 20},
		"accounts of its own":       {`useradd totp-test-code; groupadd -g 59999 totp-test7-x; useradd -M -u 59998 -g 59999 y`, 20},
		"shells and homes":          {`sed -i 's,^root:.*,root:x:0:0:root:/nonexistent:/usr/sbin/nologin,' /etc/passwd`, 20},
		"a booted machine's /run":   {`mkdir -p /run/systemd/seats; echo no >/run/nologin`, 20},
		"no gshadow":                {`rm /etc/gshadow`, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.must("sh", "-euc", c.script)
			s := m.ok("selftest")
			if want := fmt.Sprintf("%d rows as expected", c.rows); !strings.Contains(s.err, want) {
				t.Errorf("want %q:\n%s", want, s.err)
			}
		})
	}
}
