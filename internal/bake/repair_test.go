// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// repaired repairs a machine, and reports whether that changed anything.
func repaired(tb testing.TB, m *machine, boot bool) (changed bool, err error) {
	tb.Helper()
	r, err := Repair(tb.Context(), m.Target, RepairOptions{Boot: boot, Running: true})
	return len(r.Changed) > 0, err
}

// Every way in which the service file is known to be damaged, by what check says of
// it, and what check --repair, the agent at boot and another bake make of it.
func TestPAMDamage(t *testing.T) {
	const file = target.PAMService
	put := func(text func(good string) string) func(*machine) {
		return func(m *machine) { m.put(file, text(m.read(file)), 0o644) }
	}
	are := func(text string) func(*machine) { return put(func(string) string { return text }) }
	gone := func(m *machine) { m.must(m.Remove(file)) }
	add := func(where, line string) func(*machine) {
		return put(func(good string) string {
			block := testBlock(t).text
			return strings.Replace(good, block, strings.Replace(where, "BLOCK", block, 1)+line, 1)
		})
	}
	before := func(line string) func(*machine) {
		return put(func(good string) string { return strings.Replace(good, testBlock(t).text, line+testBlock(t).text, 1) })
	}
	type row struct {
		name   string
		damage func(*machine)
		want   []string // IDs of findings
		bake   error    // what another bake says; nil: it puts it right
		kept   bool     // no damage: nothing is changed
		whole  bool     // only the copy shows the damage
		by     []string // nil: all
	}
	rows := []row{
		{name: "missing", damage: gone, want: []string{"pam-service"}},
		{name: "empty", damage: are(""), want: []string{"pam-block", "pam-damaged"}},
		{name: "only comments", damage: are("# PAM\n\n# none\n"), want: []string{"pam-block", "pam-damaged"}},
		{name: "NUL bytes", damage: are(strings.Repeat("\x00", 600)), want: []string{"pam-service"}},
		{name: "a NUL at the end", damage: put(func(s string) string { return s + "\x00" }), want: []string{"pam-service"}},
		{name: "CRLF", damage: put(func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }), want: []string{"pam-service"}},
		{name: "a directory", damage: func(m *machine) { gone(m); m.put(file+"/x", "x", 0o644) }, want: []string{"pam-service"}},
		{name: "a dangling link", damage: func(m *machine) { gone(m); m.must(m.Symlink("/nowhere", file)) }, want: []string{"pam-service"}},
		{name: "a link to another file", damage: func(m *machine) { gone(m); m.must(m.Symlink("common-auth", file)) }, want: []string{"pam-service"}},
		{name: "a link to what it was", damage: func(m *machine) {
			m.put("/etc/pam.d/moved", m.read(file), 0o644)
			gone(m)
			m.must(m.Symlink("moved", file))
		}, want: []string{"pam-service"}},
		{name: "larger than it can be", damage: are(strings.Repeat("#\n", 1<<20)), want: []string{"pam-service"}},
		{name: "mode 0666", damage: func(m *machine) { m.must(m.Chmod(file, 0o666)) }, want: []string{"file-mode"}, bake: ErrWritable},
		{name: "mode 0000", damage: func(m *machine) { m.must(m.Chmod(file, 0)) }, kept: true}, // root reads it
		{name: "another owner", damage: func(m *machine) { m.must(m.Lchown(file, 1000, 1000)) }, want: []string{"file-mode"}, bake: ErrWritable},
		{name: "its directory open", damage: func(m *machine) { m.must(m.Chmod(target.PAMDir, 0o777)) }, want: []string{"file-mode"}, bake: ErrWritable},
		{name: "sufficient before ours", damage: before("auth sufficient pam_u2f.so\n"), want: []string{"pam-extra"}, bake: ErrPAM},
		{name: "permit after ours", damage: add("BLOCK", "auth required pam_permit.so\n"), want: []string{"pam-permit"}, bake: ErrPAM},
		{name: "an include before ours", damage: before("auth include common-auth\n"), want: []string{"pam-extra", "pam-nullok", "pam-permit"}, bake: ErrPAM},
		{name: "nullok", damage: put(func(s string) string { return strings.Replace(s, "noskewadj", "noskewadj nullok", 1) }), want: []string{"pam-block", "pam-nullok"}},
		{name: "another state file", damage: put(func(s string) string { return strings.Replace(s, "${USER}", "all", 1) }), want: []string{"pam-block", "pam-line"}},
		{name: "common-auth back, before", damage: before("@include common-auth\n"), want: []string{"pam-extra"}},
		{name: "common-auth back, after", damage: add("BLOCK", "@include common-auth\n"), want: []string{"pam-extra"}},
		{name: "the package's file", damage: are(stock(t, "pam.d-sshd")), want: []string{"pam-block", "pam-extra"}},
		{name: "an earlier version's line", damage: put(func(s string) string { return strings.Replace(s, testBlock(t).text, oldLine+"\n", 1) }), want: []string{"pam-block", "pam-line"}},
		{name: "faillock that counts successes", damage: add("BLOCK", "auth [default=die] pam_faillock.so authfail\n"), want: []string{"pam-tally"}},
		{name: "another counter that only denies", damage: before("auth required pam_faillock.so preauth\n"), kept: true},
		{name: "a malformed line", damage: put(func(s string) string { return s + "session optional\n" }), want: []string{"pam-damaged"}},
		{name: "an administrator's session line", damage: put(func(s string) string { return s + "session optional pam_umask.so\n" }), kept: true},
		{name: "without its account lines", damage: put(func(s string) string {
			return strings.ReplaceAll(strings.ReplaceAll(s, "@include common-account\n", ""), "account ", "#")
		}), want: []string{"pam-damaged"}},
	}
	m := newMachine(t)
	m.bake()
	good := m.read(file)
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	begin := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "auth ") })
	end := begin + len(testBlock(t).entries)
	for n := range lines {
		r := row{name: fmt.Sprintf("cut before line %d", n+1), damage: are(strings.Join(lines[:n], "")), want: []string{"pam-damaged"}}
		if n < end {
			r.want = []string{"pam-block", "pam-damaged"}
		} else if n > end {
			r.by = []string{"repair", "repair without a copy"}
			r.whole = soundPAM(strings.Join(lines[:n], "")) == nil
		}
		rows = append(rows, r)
		// Within the line, as where the disk was full. What is left of a comment is one.
		if l := strings.TrimSpace(lines[n]); n >= end && len(l) > 8 && l[0] != '#' {
			rows = append(rows, row{name: fmt.Sprintf("cut within line %d", n+1), damage: are(strings.Join(lines[:n], "") + l[:6]), want: []string{"pam-damaged"}, by: []string{"repair"}})
		}
	}
	for _, r := range rows {
		for _, by := range []string{"repair", "enroll", "bake", "repair without a copy"} {
			if r.by != nil && !slices.Contains(r.by, by) {
				continue
			}
			t.Run(r.name+"/"+by, func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				m.bake()
				r.damage(m)
				want := good
				if r.kept {
					want = m.read(file)
				}
				findings, err := Check(t.Context(), m.Target)
				m.must(err)
				var got []string
				for _, f := range findings {
					got = append(got, f.ID)
				}
				if slices.Sort(got); !slices.Equal(slices.Compact(got), slices.Compact(slices.Clone(r.want))) {
					t.Errorf("findings %q, want %q", got, r.want)
				}
				var changed bool
				switch by {
				case "bake":
					if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, r.bake) {
						t.Errorf("bake: %v, want %v", err, r.bake)
					}
					if r.bake != nil {
						return
					}
				case "repair without a copy":
					m.put(target.PAMCopy, "auth sufficient pam_permit.so\n", 0o644)
					fallthrough
				default:
					changed, err = repaired(t, m, by == "enroll")
					if unseen := r.kept || r.whole && by == "repair without a copy"; err != nil || changed == unseen {
						t.Errorf("changed %v, %v", changed, err)
					}
				}
				fi, err := m.Lstat(file)
				if err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm()&0o022 != 0 || !owned(fi) {
					t.Errorf("%v, %v", fi.Mode(), err)
				}
				if got := m.read(file); by != "repair without a copy" && got != want {
					t.Errorf("became\n%s", got)
				}
				if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
					t.Errorf("afterwards: %q, %v", ids(findings), err)
				}
				if changed, err := repaired(t, m, by == "enroll"); changed || err != nil || Closed(m.Target) != "" {
					t.Errorf("again: changed %v, %v, closed %q", changed, err, Closed(m.Target))
				}
			})
		}
	}
}

// What an administrator has added survives a later loss of the file, and what was
// replaced is put aside.
func TestRepairKeeps(t *testing.T) {
	m := newMachine(t)
	m.bake()
	mine := m.read(target.PAMService) + "session optional pam_umask.so\n"
	m.put(target.PAMService, mine, 0o640)
	if changed, err := repaired(t, m, false); changed || err != nil || m.read(target.PAMCopy) != mine {
		t.Errorf("changed %v, %v\n%s", changed, err, m.read(target.PAMCopy))
	}
	m.must(m.Remove(target.PAMService))
	if changed, err := repaired(t, m, true); !changed || err != nil || m.read(target.PAMService) != mine {
		t.Errorf("changed %v, %v\n%s", changed, err, m.read(target.PAMService))
	}
	theirs := "auth sufficient pam_u2f.so\n" + mine
	m.put(target.PAMService, theirs, 0o644)
	if changed, err := repaired(t, m, false); !changed || err != nil || m.read(target.PAMReplaced) != theirs {
		t.Errorf("changed %v, %v\n%s", changed, err, m.read(target.PAMReplaced))
	}
	if fi, err := m.Lstat(target.PAMReplaced); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	// The copy is never made from a file that is damaged, nor from one that opens a login.
	if m.read(target.PAMCopy) != mine {
		t.Errorf("the copy is\n%s", m.read(target.PAMCopy))
	}
}

func TestRepair(t *testing.T) {
	m := newMachine(t)
	if changed, err := repaired(t, m, false); changed || err != nil || m.read(target.PAMService) != stock(t, "pam.d-sshd") {
		t.Errorf("a system that was never baked: changed %v, %v", changed, err)
	}
	m.bake()
	good := m.read(target.PAMService)
	m.must(m.Mkdir(target.PAMTallyDir, tallyMode)) // tmpfiles.d does that
	before := snapshot(t, m.Root(), true)
	if changed, err := repaired(t, m, false); changed || err != nil {
		t.Errorf("nothing to do: changed %v, %v", changed, err)
	}
	if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
		t.Errorf("nothing to do:\n%s", strings.Join(d, "\n"))
	}
	// An upgraded system is not one that was baked, and its update is the likeliest.
	osRelease := m.read(target.OSRelease)
	for _, upgraded := range []string{"ID=debian\nVERSION_ID=\"14\"\n", "ID=debian\n"} {
		m.put(target.OSRelease, upgraded, 0o644)
		m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
		if changed, err := repaired(t, m, true); !changed || err != nil || m.read(target.PAMService) != good {
			t.Errorf("%q: changed %v, %v", upgraded, changed, err)
		}
	}
	m.put(target.OSRelease, "ID=other\n", 0o644)
	if changed, err := repaired(t, m, false); changed || !errors.Is(err, ErrSystem) {
		t.Errorf("another distribution: changed %v, %v", changed, err)
	}
	m.put(target.OSRelease, osRelease, 0o644)
	// Another agent at work does not keep the lines out.
	unlock, err := m.Lock(target.StateDir)
	m.must(err)
	defer unlock()
	m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
	if changed, err := repaired(t, m, false); !changed || err != nil || m.read(target.PAMService) != good {
		t.Errorf("while locked: changed %v, %v", changed, err)
	}
}

// A reset or an enrollment does not wait while a repair asks sshd, once per user.
func TestRepairAsksUnlocked(t *testing.T) {
	m := newMachine(t)
	m.bake()
	m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
	m.must(m.Remove(target.SSHDLogin))
	answer := m.Handle
	asked := 0
	m.Handle = func(argv []string) targettest.Answer {
		if argv[0] == target.SSHD {
			asked++
			unlock, err := m.Lock(target.StateDir)
			if err != nil {
				t.Errorf("%q: %v", argv, err)
			} else {
				unlock()
			}
		}
		return answer(argv)
	}
	if changed, err := repaired(t, m, false); !changed || err != nil || asked == 0 {
		t.Errorf("changed %v, %v, asked %d times", changed, err, asked)
	}
}

// A file that is replaced while a repair is at work does not close SSH.
func TestRepairDuringAnUpdate(t *testing.T) {
	m := newMachine(t)
	m.bake()
	good := m.read(target.PAMService)
	answer := m.Handle
	left := 1
	m.Handle = func(argv []string) targettest.Answer {
		if left > 0 && argv[0] == target.SSHD { // after the service file was looked at
			left--
			m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
		}
		return answer(argv)
	}
	var console strings.Builder
	r, err := Repair(t.Context(), m.Target, RepairOptions{Console: &console, Running: true})
	if err != nil || r.Closed || console.Len() > 0 || left > 0 || m.read(target.PAMService) != good {
		t.Errorf("%+v, %v, %q\n%s", r, err, console.String(), m.read(target.PAMService))
	}
}

// Our files of sshd, who can write what a login depends on, and the directories of
// secrets.
func TestRepairLoginPath(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(*machine)
		boot   bool // also the agent at boot repairs it
	}{
		{"drop-in missing", func(m *machine) { m.must(m.Remove(target.SSHDDropIn)) }, true},
		{"drop-in a directory", func(m *machine) { m.must(m.Remove(target.SSHDDropIn)); m.must(m.Mkdir(target.SSHDDropIn, 0o755)) }, true},
		{"drop-in altered", func(m *machine) { m.put(target.SSHDDropIn, "UsePAM no\n", 0o600) }, true},
		{"drop-in cut", func(m *machine) { m.put(target.SSHDDropIn, "", 0o600) }, true},
		{"drop-ins gone", func(m *machine) { m.must(m.RemoveAll(target.SSHDDropInDir)) }, true},
		{"host keys missing", func(m *machine) { m.must(m.Remove(target.SSHDHostKeys)) }, true},
		{"unit's drop-in missing", func(m *machine) { m.must(m.RemoveAll(filepath.Dir(sshUnitTemplate))) }, true},
		{"state directory open", func(m *machine) { m.must(m.Chmod(target.PAMStateDir, 0o755)) }, true},
		{"state directory missing", func(m *machine) { m.must(m.Remove(target.PAMStateDir)) }, true},
		{"sshd_config open", func(m *machine) { m.must(m.Chmod(target.SSHDConfig, 0o666)) }, true},
		{"/etc/ssh open", func(m *machine) { m.must(m.Chmod(target.SSHDir, 0o777)) }, true},
	} {
		for _, boot := range []bool{false, true} {
			m := newMachine(t)
			m.bake()
			test.damage(m)
			w := NewWatch(m.Target)
			stamp := w.Stamp()
			changed, err := repaired(t, m, boot)
			if want := !boot || test.boot; changed != want || err != nil {
				t.Errorf("%s, boot %v: changed %v, %v", test.name, boot, changed, err)
			}
			if changed == (w.Stamp() == stamp) {
				t.Errorf("%s, boot %v: the fingerprint does not show it", test.name, boot)
			}
			if findings, err := Check(t.Context(), m.Target); changed && (err != nil || len(findings) > 0) {
				t.Errorf("%s, boot %v: %q, %v", test.name, boot, ids(findings), err)
			}
		}
	}
}

// What a repair that was killed has left is removed, a minute later.
func TestRepairSweeps(t *testing.T) {
	m := newMachine(t)
	m.bake()
	for _, dir := range []string{target.PAMDir, target.SSHDir, target.SSHDDropInDir} {
		for name, age := range map[string]time.Duration{"/.totp-tmp-old": 2 * time.Minute, "/.totp-tmp-new": 0} {
			m.put(dir+name, "x", 0o600)
			m.must(m.Chtimes(dir+name, time.Now().Add(-age)))
		}
	}
	if _, err := repaired(t, m, true); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{target.PAMDir, target.SSHDir, target.SSHDDropInDir} {
		if m.Exists(dir+"/.totp-tmp-old") || !m.Exists(dir+"/.totp-tmp-new") {
			t.Errorf("%s was not swept as it should be", dir)
		}
	}
}

// A directory of secrets that another user owns, who may have put files there, is left
// for an administrator to look at.
func TestRepairLeavesForeignDirectories(t *testing.T) {
	for _, dir := range []string{target.StateDir, target.PAMStateDir} {
		for _, boot := range []bool{false, true} {
			m := newMachine(t)
			m.bake()
			m.must(m.Lchown(dir, 1000, 1000))
			if changed, err := repaired(t, m, boot); changed || err != nil {
				t.Errorf("%s, boot %v: changed %v, %v", dir, boot, changed, err)
			}
			if findings, err := Check(t.Context(), m.Target); err != nil || !slices.Contains(ids(findings), "file-owner "+dir) {
				t.Errorf("%s: %q, %v", dir, ids(findings), err)
			}
		}
	}
}

// What cannot be repaired closes SSH, says so, and opens it again.
func TestRepairCloses(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(*machine)
		undo   func(*machine)
		id     string
		deny   bool
	}{
		{"a way in by another file", func(m *machine) { m.put("/etc/pam.d/common-session", "auth sufficient pam_permit.so\n", 0o644) },
			func(m *machine) { m.put("/etc/pam.d/common-session", "session required pam_unix.so\n", 0o644) }, "pam-permit", true},
		{"a carriage return in another file", func(m *machine) { m.put("/etc/pam.d/common-session", "session required pam_unix.so\r\n", 0o644) },
			func(m *machine) { m.put("/etc/pam.d/common-session", "session required pam_unix.so\n", 0o644) }, "pam-service", true},
		{"sshd asks for no code", func(m *machine) { m.effective["AuthenticationMethods"] = "publickey" },
			func(m *machine) { delete(m.effective, "AuthenticationMethods") }, "sshd-effective", true},
		{"no module", func(m *machine) { m.must(m.Remove(module)) },
			func(m *machine) { m.put(module, elfAMD64, 0o644) }, "pam-module", false},
	} {
		m := newMachine(t)
		m.bake()
		test.damage(m)
		var log, console strings.Builder
		o := RepairOptions{Log: &log, Console: &console, Running: true}
		r, err := Repair(t.Context(), m.Target, o)
		if !errors.Is(err, ErrLeft) || r.Closed != test.deny || !slices.ContainsFunc(r.Left, func(f Finding) bool { return f.ID == test.id }) {
			t.Errorf("%s: %+v, %v", test.name, r, err)
		}
		conf, err := os.ReadFile(filepath.Join(m.Root(), target.ClosedConf))
		if err != nil || strings.Contains(string(conf), "DenyUsers *\n") != test.deny || !strings.Contains(string(conf), "Banner "+target.ClosedBanner+"\n") {
			t.Errorf("%s: %s, %v", test.name, conf, err)
		}
		for _, f := range r.Left {
			if before, ok := strings.CutSuffix(f.Fix, ", then "+repairIt); !ok || before == "correct it" || strings.Contains(before, repairIt) {
				t.Errorf("%s: %s: the remedy is %q, and a repair has just failed", test.name, f.ID, f.Fix)
			}
		}
		banner := Closed(m.Target)
		for where, text := range map[string]string{"banner": banner, "console": console.String(), "log": log.String()} {
			if !strings.Contains(text, test.id) || !strings.Contains(text, "totp-agent check --repair") {
				t.Errorf("%s: %s: %q", test.name, where, text)
			}
			if where != "log" && (strings.Contains(text, "alice") || strings.Contains(text, `"root"`)) {
				t.Errorf("%s: %s names a user: %q", test.name, where, text)
			}
		}
		findings, err := Check(t.Context(), m.Target)
		if m.must(err); !slices.Contains(ids(findings), "ssh-closed "+target.ClosedConf) {
			t.Errorf("%s: %q", test.name, ids(findings))
		}
		// Once said is enough.
		console.Reset()
		if _, err := Repair(t.Context(), m.Target, o); !errors.Is(err, ErrLeft) || console.Len() > 0 {
			t.Errorf("%s, again: %v, %q", test.name, err, console.String())
		}
		test.undo(m)
		// While sshd does not say what it would do, SSH stays closed.
		m.fail[target.SSHD+" -t"] = targettest.Answer{Stderr: "line 3: Bad", Err: errCommand}
		if _, err := Repair(t.Context(), m.Target, o); test.deny && (!errors.Is(err, ErrLeft) || Closed(m.Target) == "" || !m.Exists(target.ClosedMark)) {
			t.Errorf("%s, and sshd cannot be asked: %v, closed %q", test.name, err, Closed(m.Target))
		}
		delete(m.fail, target.SSHD+" -t")
		if r, err := Repair(t.Context(), m.Target, o); err != nil || r.Closed || Closed(m.Target) != "" || m.Exists(target.ClosedConf) {
			t.Errorf("%s, undone: %+v, %v, %q", test.name, r, err, Closed(m.Target))
		}
		if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
			t.Errorf("%s, undone: %q, %v", test.name, ids(findings), err)
		}
		test.damage(m)
		if _, err := Repair(t.Context(), m.Target, RepairOptions{}); !errors.Is(err, ErrLeft) || m.Exists(target.ClosedConf) {
			t.Errorf("%s, not running: %v", test.name, err)
		}
	}
}
