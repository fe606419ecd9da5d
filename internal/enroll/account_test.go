// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// setAccount replaces alice's line of /etc/passwd; empty removes it.
func (m *machine) setAccount(line string) {
	m.Helper()
	var lines []string
	for l := range strings.Lines(m.read(target.Passwd)) {
		if !strings.HasPrefix(l, "alice:") {
			lines = append(lines, l)
		}
	}
	if line != "" {
		lines = append(lines, line+"\n")
	}
	m.put(target.Passwd, strings.Join(lines, ""))
}

// newHome makes a directory that is another one than what was there before.
func (m *machine) newHome(name string) {
	m.Helper()
	dir := filepath.Join(m.t.Root(), name)
	for _, err := range []error{os.MkdirAll(dir+".new", 0o700), os.RemoveAll(dir), os.Rename(dir+".new", dir)} {
		if err != nil {
			m.Fatal(err)
		}
	}
}

// TestAccountReplaced: a secret belongs to an account, and not to its name.
func TestAccountReplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(m *machine)
		kept   bool
	}{
		"nothing":                       {func(m *machine) {}, true},
		"another uid":                   {func(m *machine) { m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash") }, false},
		"the same uid, a new home":      {func(m *machine) { m.newHome("/home/alice") }, false},
		"another uid and home":          {func(m *machine) { m.setAccount("alice:x:1005:1005::/srv/alice:/bin/bash"); m.newHome("/srv/alice") }, false},
		"usermod -d, without the files": {func(m *machine) { m.setAccount("alice:x:1000:1000::/srv/alice:/bin/bash") }, true},
		"usermod -m -d": {func(m *machine) {
			m.setAccount("alice:x:1000:1000::/alice:/bin/bash")
			if err := os.Rename(filepath.Join(m.t.Root(), "home/alice"), filepath.Join(m.t.Root(), "alice")); err != nil {
				m.Fatal(err)
			}
		}, true},
		"the home is gone": {func(m *machine) {
			if err := os.RemoveAll(filepath.Join(m.t.Root(), "home/alice")); err != nil {
				m.Fatal(err)
			}
		}, true},
		"another shell, group and comment": {func(m *machine) { m.setAccount("alice:x:1000:4:Alice:/home/alice:/bin/sh") }, true},
		"new files at home":                {func(m *machine) { m.put("/home/alice/.profile", "x") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.newHome("/home/alice")
			m.mustRun()
			before, _ := m.enrolled("alice")
			tt.change(m)
			st := m.mustRun()
			now, c := m.enrolled("alice")
			if kept := now.Secret == before.Secret; kept != tt.kept {
				t.Errorf("secret kept: %v, want %v\n%s", kept, tt.kept, m.log.String())
			}
			if u := user(st, "alice"); !u.Enrolled || u.ID != now.Mark.ID {
				t.Errorf("status: %+v", u)
			}
			if want := map[bool]int{true: 1, false: 2}[tt.kept]; c.Generation != want {
				t.Errorf("generation %d, want %d", c.Generation, want)
			}
			// And then it stays.
			m.mustRun()
			if again, _ := m.enrolled("alice"); again.Secret != now.Secret {
				t.Error("the next run made another secret")
			}
		})
	}
}

// TestAccountReplacedAndNotEnrolled: where the new account is not enrolled, the old
// secret goes all the more.
func TestAccountReplacedAndNotEnrolled(t *testing.T) {
	for name, layer := range map[string]string{
		"no recipient": "version: 1\n",
		"not named":    "",
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			if layer == "" {
				m.put(target.ImagePolicy, "version: 1\nissuer: I\nenroll: listed\n")
				layer = "version: 1\nusers: [{name: bob, recipients: [" + testRecipient + "]}]\n"
			}
			m.layer(layer)
			m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash")
			m.mustRun()
			m.closed("alice")
			for _, meta := range m.readyMetas() {
				if meta == "alice" {
					t.Error("the envelope of the old account is still there")
				}
			}
		})
	}
}

func (m *machine) readyMetas() (users []string) {
	m.Helper()
	entries, err := m.t.ReadDir(target.Ready)
	if err != nil {
		m.Fatal(err)
	}
	for _, e := range entries {
		if b, err := m.t.ReadFile(target.Ready + "/" + e.Name() + "/meta.json"); err == nil && strings.Contains(string(b), `"alice"`) {
			users = append(users, "alice")
		}
	}
	return users
}

// TestRecordBesideALogin: a login that ends while the account is recorded, or is about to
// end, keeps what it has written: the code that it used.
func TestRecordBesideALogin(t *testing.T) {
	for _, ended := range []bool{true, false} {
		m := newMachine(t)
		m.newHome("/home/alice")
		m.mustRun()
		s, _ := m.enrolled("alice")
		s.Mark.Account = ""
		before, err := s.Format()
		if err != nil {
			t.Fatal(err)
		}
		s.Used, s.BackupCodes = true, s.BackupCodes[1:]
		after, err := s.Format()
		if err != nil {
			t.Fatal(err)
		}
		m.put(stateFile("alice"), string(before))
		m.t.Fault(func(op, name string) error {
			if op == "create" && strings.HasPrefix(name, target.PAMStateDir) {
				if ended {
					m.put(stateFile("alice"), string(after))
				} else {
					m.put(stateFile("alice")+"~aB3dEf", string(after))
				}
			}
			return nil
		})
		m.mustRun()
		m.t.Fault(nil)
		want := len(s.BackupCodes)
		if !ended {
			want++
		}
		if now, err := readState(m.t, "alice"); err != nil || len(now.BackupCodes) != want || now.Mark.Account != "" {
			t.Errorf("ended %v: %d backup codes, want %d; account %q, want none yet; %v", ended, len(now.BackupCodes), want, now.Mark.Account, err)
		}
		if ended {
			m.mustRun()
			if now, err := readState(m.t, "alice"); err != nil || len(now.BackupCodes) != want || now.Mark.Account == "" {
				t.Errorf("the next run: %d backup codes, want %d; account %q; %v", len(now.BackupCodes), want, now.Mark.Account, err)
			}
		}
	}
}

// TestStoppedWhileReplacing: a power cut at any moment ends in one whole enrollment,
// which is not the old account's.
func TestStoppedWhileReplacing(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			before, _ := m.enrolled("alice")
			m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash")
			m.stop(step, "")
			m.mustRun()
			if now, c := m.enrolled("alice"); now.Secret == before.Secret || c.Generation != 2 {
				t.Errorf("old secret: %v, generation %d", now.Secret == before.Secret, c.Generation)
			}
		})
	}
}

// TestAccountAdopted: an enrollment of an older agent has no account in its mark. The
// first run adds the one of now, and nothing else changes.
func TestAccountAdopted(t *testing.T) {
	m := newMachine(t)
	m.newHome("/home/alice")
	m.mustRun()
	m.logIn("alice")
	s, err := readState(m.t, "alice")
	if err != nil {
		t.Fatal(err)
	}
	old := s
	s.Mark.Account = ""
	b, err := s.Format()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.t.WriteFile(stateFile("alice"), b, 0o400); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	now, err := readState(m.t, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if now.Mark != old.Mark || now.Secret != old.Secret || now.Used != old.Used || len(now.Steps) != len(old.Steps) || len(now.BackupCodes) != len(old.BackupCodes) {
		t.Errorf("mark %+v, want %+v", now.Mark, old.Mark)
	}
	m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash")
	m.mustRun()
	if again, _ := m.enrolled("alice"); again.Secret == now.Secret {
		t.Error("the account was adopted and is not bound")
	}
}

// TestHandMadeStateOfAReplacedAccount: a file that the administrator made is not the agent's to judge.
func TestHandMadeStateOfAReplacedAccount(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	m.put(stateFile("alice"), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n\" TOTP_AUTH\n")
	m.mustRun()
	m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash")
	m.mustRun()
	if s, err := readState(m.t, "alice"); err != nil || s.Secret != "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" {
		t.Errorf("%v", err)
	}
}

func TestReplacedBy(t *testing.T) {
	parse := func(s string) accountID {
		a, ok := parseAccountID(s)
		if !ok || a.String() != s {
			t.Fatalf("%q: %+v, %v", s, a, ok)
		}
		return a
	}
	for _, tt := range []struct {
		was, now string
		want     bool
	}{
		{"1000.local.f1.h1", "1000.local.f1.h1", false},
		{"1000.local.f1.h1", "1001.local.f1.h1", true},
		{"1000.local.f1.h1", "1000.local.f1.h2", true},
		{"1000.local.f1.h1", "1000.local.f2.h2", false}, // a volume on /home
		{"1000.local.f1.h1", "1000.local.-.-", false},
		{"1000.local.-.-", "1000.local.f1.h1", false},
		{"1000.nss.f1.h1", "1000.local.f1.h1", false},
		{"1000.nss.f1.h1", "1000.nss.f1.h2", true},
		{"0.local.f1.h1", "0.local.f1.h1", false},
	} {
		if got := parse(tt.was).replacedBy(parse(tt.now)); got != tt.want {
			t.Errorf("%s, now %s: %v, want %v", tt.was, tt.now, got, tt.want)
		}
	}
	for _, s := range []string{"", "1000", "1000.local.f", "x.local.f.h", "-1.local.f.h", "1000.ldap.f.h", "1000.local.f.h.x"} {
		if a, ok := parseAccountID(s); ok {
			t.Errorf("%q: %+v", s, a)
		}
	}
}

// directory makes getent know users.
func (m *machine) directory(lines map[string]string, fail error) {
	m.put("/usr/bin/getent", "")
	if err := os.Chmod(filepath.Join(m.t.Root(), "usr/bin/getent"), 0o755); err != nil {
		m.Fatal(err)
	}
	m.t.SetRunner(&targettest.Recorder{Handle: func(argv []string) targettest.Answer {
		if argv[0] != target.GetentCmd {
			return targettest.Answer{}
		}
		if fail != nil {
			return targettest.Answer{Err: fail}
		}
		return targettest.Answer{Stdout: lines[argv[2]]}
	}})
}

// TestDirectoryUsers: a user of the policy that only a directory service knows is
// enrolled, and keeps the enrollment while the service does not answer or does not
// know the user.
func TestDirectoryUsers(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\nusers:\n  - {name: erin, recipients: [" + testRecipient + "]}\n")
	known := map[string]string{"erin": "erin:*:20001:20001:Erin:/home/erin:/bin/bash\n"}
	m.directory(known, nil)
	st := m.mustRun()
	before, _ := m.enrolled("erin")
	if u := user(st, "erin"); !u.Enrolled {
		t.Fatalf("%+v", u)
	}
	for name, change := range map[string]func(){
		"not known":   func() { m.directory(nil, nil) },
		"no answer":   func() { m.directory(nil, errors.New("timeout")) },
		"not named":   func() { m.directory(nil, nil); m.layer("version: 1\n") },
		"known again": func() { m.directory(known, nil) },
	} {
		change()
		m.mustRun()
		if now, err := readState(m.t, "erin"); err != nil || now.Secret != before.Secret {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.directory(map[string]string{"erin": "erin:*:20002:20001:Erin:/home/erin:/bin/bash\n"}, nil)
	m.layer("version: 1\nusers:\n  - {name: erin, recipients: [" + testRecipient + "]}\n")
	m.mustRun()
	if now, _ := m.enrolled("erin"); now.Secret == before.Secret {
		t.Error("another uid, and the old secret")
	}
}

// TestDirectorySilent: a service that does not answer is not an unknown user.
func TestDirectorySilent(t *testing.T) {
	for name, tt := range map[string]struct{ fail, want error }{
		"not known": {nil, ErrNoAccount},
		"no answer": {errors.New("timeout"), errDirectory},
	} {
		m := newMachine(t)
		m.layer("version: 1\nusers:\n  - {name: erin, recipients: [" + testRecipient + "]}\n")
		m.directory(nil, tt.fail)
		st := m.mustRun()
		if u := user(st, "erin"); u.Enrolled || !strings.HasPrefix(u.Why, tt.want.Error()) {
			t.Errorf("%s: %+v, want %v", name, u, tt.want)
		}
		if _, err := m.t.Lstat(stateFile("erin")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
