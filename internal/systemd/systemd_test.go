// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package systemd

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

const stock = "[Unit]\nAfter=network.target\n[Service]\nEnvironmentFile=-/etc/default/ssh\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n"

// Every place from which systemd takes a drop-in, or a whole unit.
func TestLoad(t *testing.T) {
	const vendor, etc = "/lib/systemd/system/", "/etc/systemd/system/"
	const start = "[Service]\nExecStart=\nExecStart=/other\n"
	for _, test := range []struct {
		name  string
		files map[string]string // content; "->" begins a link
		want  string            // ExecStart
		file  string
	}{
		{"stock", nil, "/usr/sbin/sshd -D $SSHD_OPTS", ""},
		{"drop-in", map[string]string{etc + "ssh.service.d/x.conf": start}, "/other", ""},
		{"drop-in of the alias", map[string]string{etc + "sshd.service.d/x.conf": start}, "/other", ""},
		{"drop-in of an alias of the alias", map[string]string{etc + "my.service": "->sshd.service", etc + "my.service.d/x.conf": start}, "/other", ""},
		{"local", map[string]string{"/usr/local/lib/systemd/system/ssh.service.d/x.conf": start}, "/other", ""},
		{"vendor", map[string]string{vendor + "ssh.service.d/x.conf": start}, "/other", ""},
		{"usr", map[string]string{"/usr/lib/systemd/system/sshd.service.d/x.conf": start}, "/other", ""},
		{"run", map[string]string{"/run/systemd/system/ssh.service.d/x.conf": start}, "/other", ""},
		{"run control", map[string]string{"/run/systemd/system.control/ssh.service.d/50-x.conf": start}, "/other", ""},
		{"etc control", map[string]string{"/etc/systemd/system.control/ssh.service.d/50-x.conf": start}, "/other", ""},
		{"transient", map[string]string{"/run/systemd/transient/ssh.service.d/50-x.conf": start}, "/other", ""},
		{"attached", map[string]string{"/etc/systemd/system.attached/ssh.service.d/50-x.conf": start}, "/other", ""},
		{"generator", map[string]string{"/run/systemd/generator/ssh.service.d/50-x.conf": start}, "/other", ""},
		{"all services", map[string]string{etc + "service.d/x.conf": start}, "/other", ""},
		{"beginning of an alias", map[string]string{etc + "a-b.service": "->" + vendor + "ssh.service", etc + "a-.service.d/x.conf": start}, "/other", ""},
		{"edited as a whole", map[string]string{etc + "ssh.service": "[Service]\nExecStart=/edited\n"}, "/edited", etc + "ssh.service"},
		{"edited under /run", map[string]string{"/run/systemd/system/ssh.service": "[Service]\nExecStart=/edited\n"}, "/edited", "/run/systemd/system/ssh.service"},
		{"a linked file", map[string]string{"/opt/x.service": "[Service]\nExecStart=/edited\n", etc + "ssh.service": "->/opt/x.service"}, "/edited", etc + "ssh.service"},
		{"the first of one name", map[string]string{etc + "ssh.service.d/x.conf": "[Service]\n", vendor + "ssh.service.d/x.conf": start}, "/usr/sbin/sshd -D $SSHD_OPTS", ""},
		{"masked drop-in", map[string]string{etc + "ssh.service.d/x.conf": "->/dev/null", vendor + "ssh.service.d/x.conf": start}, "/usr/sbin/sshd -D $SSHD_OPTS", ""},
		{"the last one counts", map[string]string{etc + "ssh.service.d/a.conf": start, vendor + "ssh.service.d/b.conf": "[Service]\nExecStart=\nExecStart=/last\n"}, "/last", ""},
		{"another section", map[string]string{etc + "ssh.service.d/a.conf": "[Unit]\nExecStart=\n"}, "/usr/sbin/sshd -D $SSHD_OPTS", ""},
		{"blanks, comments, lines that go on", map[string]string{etc + "ssh.service.d/a.conf": " [Service]\n  ExecStart =\n; no\nExecStart = /x \\\n# within\n  -a \\\n-b\n"}, "/x    -a  -b", ""},
		{"no drop-in", map[string]string{etc + "ssh.service.d/a.config": start, etc + "ssh.socket.d/a.conf": start, etc + "ssh@.service.d/a.conf": start}, "/usr/sbin/sshd -D $SSHD_OPTS", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, _ := targettest.New(t)
			put := func(name, text string) {
				if dest, ok := strings.CutPrefix(text, "->"); ok {
					targettest.Put(t, m, name+".x", "", 0o644) // its directory
					if err := errors.Join(m.Remove(name+".x"), m.Symlink(dest, name)); err != nil {
						t.Fatal(err)
					}
					return
				}
				targettest.Put(t, m, name, text, 0o644)
			}
			targettest.Put(t, m, "/dev/null", "", 0o644)
			put(vendor+"ssh.service", stock)
			put(etc+"sshd.service", "->"+vendor+"ssh.service")
			for name, text := range test.files {
				put(name, text)
			}
			for _, name := range []string{"ssh.service", "sshd.service"} {
				u, err := Load(m, name)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, s := range u.List("Service", "ExecStart") {
					got = append(got, s.Value)
				}
				if strings.Join(got, "; ") != test.want && (test.file == "" || name == "ssh.service") {
					t.Errorf("%s: %q, want %q; drop-ins %q", name, got, test.want, u.DropIns)
				}
				if test.file != "" && name == "ssh.service" && u.File != test.file {
					t.Errorf("%s is in %s", name, u.File)
				}
			}
		})
	}
}

func TestLoadMasked(t *testing.T) {
	m, _ := targettest.New(t)
	targettest.Put(t, m, "/etc/systemd/system/empty.service", "", 0o644)
	targettest.Put(t, m, "/lib/systemd/system/ssh.service", stock, 0o644)
	if err := m.Symlink("/dev/null", "/etc/systemd/system/ssh.service"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"ssh.service": true, "empty.service": true, "none.service": false} {
		if u, err := Load(m, name); err != nil || u.Masked != want || (u.File == "") == want {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}

// A template gets the drop-ins of its instances: which there will be is not known.
func TestLoadTemplate(t *testing.T) {
	m, _ := targettest.New(t)
	targettest.Put(t, m, "/lib/systemd/system/sshd@.service", stock, 0o644)
	targettest.Put(t, m, "/run/systemd/generator/x", "", 0o644)
	if err := m.Symlink("/lib/systemd/system/sshd@.service", "/run/systemd/generator/sshd-unix-local@.service"); err != nil {
		t.Fatal(err)
	}
	want := []string{"/etc/systemd/system/sshd@1.service.d/a.conf", "/etc/systemd/system/sshd-unix-local@.service.d/b.conf", "/etc/systemd/system/sshd-.service.d/c.conf"}
	for _, name := range want {
		targettest.Put(t, m, name, "[Service]\n", 0o644)
	}
	if u, err := Load(m, "sshd@.service"); err != nil || !slices.Equal(u.DropIns, want) {
		t.Errorf("%q, %v, want %q", u.DropIns, err, want)
	}
}

func TestSplit(t *testing.T) {
	for value, want := range map[string][]string{
		"":                             nil,
		" -4  -p\t22 ":                 {"-4", "-p", "22"},
		`-o "AcceptEnv A B" -q`:        {"-o", "AcceptEnv A B", "-q"},
		`-o 'Match all' a"b c"d ''`:    {"-o", "Match all", "ab cd", ""},
		`-o "not closed here`:          {"-o", "not closed here"},
		`a\ b \"c`:                     {"a b", `"c`},
		`"it's" 'a "b"'`:               {"it's", `a "b"`},
		"-f /etc/x\n-f /etc/y":         {"-f", "/etc/x", "-f", "/etc/y"},
		`-oAuthenticationMethods=a\,b`: {"-oAuthenticationMethods=a,b"},
	} {
		if got := Split(value); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestParseEnvironment(t *testing.T) {
	got := ParseEnvironment(`# A=no
; B=no
PLAIN=-4 -p 22   
 INDENTED = x
EMPTY=
DOUBLE="-f /etc/other -o \"Match all\" \$x \y"
SINGLE='-f "x" \n'
JOINED='a'"b"c
AFTER="a"  
CONTINUED=-4 \
-6
export NO=1
no value
1BAD=1
# a comment that goes on \
COMMENTED=no
QUOTED_LINES="a
b"
TWICE=1
TWICE=2
HASH=a # b
LAST=x`)
	want := map[string]string{
		"PLAIN": "-4 -p 22", "INDENTED": "x", "EMPTY": "", "DOUBLE": `-f /etc/other -o "Match all" $x \y`, "SINGLE": `-f "x" \n`, "JOINED": "abc", "AFTER": "a",
		"CONTINUED": "-4 -6", "QUOTED_LINES": "a\nb", "TWICE": "2", "HASH": "a # b", "LAST": "x",
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s: %q, want %q", name, v, value)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("and %q", got)
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name, dropIn string
		want         string
		err          error
	}{
		{"file", "", "-4", nil},
		{"a value loses to the file", "[Service]\nEnvironment=SSHD_OPTS=-6\n", "-4", nil},
		{"a later file", "[Service]\nEnvironmentFile=/etc/site\n", "-f x", nil},
		{"a pattern", "[Service]\nEnvironmentFile=/etc/si*\n", "-f x", nil},
		{"cleared", "[Service]\nEnvironmentFile=\nEnvironment=\"SSHD_OPTS=-o A=b\"\n", "-o A=b", nil},
		{"unset", "[Service]\nUnsetEnvironment=SSHD_OPTS\n", "", nil},
		{"a missing file", "[Service]\nEnvironmentFile=/none\n", "", errAny},
		{"a specifier", "[Service]\nEnvironment=SSHD_OPTS=%i\n", "", ErrNotUnderstood},
		{"a specifier in a name", "[Service]\nEnvironmentFile=/etc/%p\n", "", ErrNotUnderstood},
	} {
		m, _ := targettest.New(t)
		targettest.Put(t, m, "/lib/systemd/system/ssh.service", stock, 0o644)
		targettest.Put(t, m, "/etc/default/ssh", "SSHD_OPTS=-4\n", 0o644)
		targettest.Put(t, m, "/etc/site", "SSHD_OPTS='-f x'\n", 0o644)
		targettest.Put(t, m, "/etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=SSHD_OPTS=-manager ONLY=y\n", 0o644)
		targettest.Put(t, m, "/etc/systemd/system/ssh.service.d/x.conf", test.dropIn+" ", 0o644)
		u, err := Load(m, "ssh.service")
		if err != nil {
			t.Fatal(err)
		}
		env, err := u.Environment(m)
		switch {
		case test.err == errAny && err == nil, test.err != errAny && !errors.Is(err, test.err):
			t.Errorf("%s: %v", test.name, err)
		case err == nil && (env["SSHD_OPTS"].Value != test.want || env["ONLY"].Value != "y"):
			t.Errorf("%s: %q, want %q", test.name, env, test.want)
		}
	}
}

var errAny = errors.New("any error")

func TestExpand(t *testing.T) {
	env := Environment{"OPTS": {Value: `-4 -o "A b"`}, "X": {Value: "y z"}}
	for command, want := range map[string]string{
		"/s $OPTS -f x":       `/s|-4|-o|A b|-f|x`,
		"/s ${OPTS} -f":       `/s|-4 -o "A b"|-f`,
		"/s a${X}b $X $NO $$": `/s|ay zb|y|z|$`,
		"/s a$X":              `/s|a$X`,
		"$X a":                `$X|a`,
	} {
		if got := strings.Join(Expand(Split(command), env), "|"); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(stock, `A="b\`)
	f.Fuzz(func(t *testing.T, unit, env string) {
		for _, s := range parse("x", unit) {
			if strings.Contains(s.Key, "\n") {
				t.Fatalf("%+v", s)
			}
			Expand(Split(s.Value), Environment{"A": {Value: env}})
		}
		for name := range ParseEnvironment(env) {
			if !validVariable(name) {
				t.Fatalf("%q", name)
			}
		}
	})
}
