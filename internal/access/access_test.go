// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

const (
	ed25519Key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMpVVjCrwLa4CYKeWpSLc8b6ZBR4Cy+ZV32Qv4vyCYmS anna@desk.example"
	ecdsaKey   = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFfgbB1TJtTZBYDZBkSMQcTVumkOw6Sgm0QbyNS8FM94jfwiT2LXkLIfnCNtHaN10sgzCXpTXd/M+iXIpy0y1cM="
	rsa1024Key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCltWYfm1oS83vrJud3IL6jGfUwmR/O7bL+M2NF2WoTKGFRqbQ0r43m3ufWCA7xsZJ6xc1wSEIFKySuY8YQGGQ6oAZOBkBEL37Byqv04JaYV1RrJITrPAIuKoOoboFXty8VJm0uKGoaEAw3O3hsX3TH3dmADN66JMFnqcfjAulrzQ== old putty key"
	certKey    = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIMGw0W7Ie3Qc7NgZZoReVVz1zWDVqxwqvy6mxw+pMLXOAAAAIMpVVjCrwLa4CYKeWpSLc8b6ZBR4Cy+ZV32Qv4vyCYmSAAAAAAAAAAAAAAABAAAABGFubmEAAAAIAAAABGFubmEAAAAAaw3X/wAAAABs7bsrAAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgSQ4sqLrZn6hl7taK5/1D7jkqAZJYkwFm3Rk+GNtX59sAAABT"
	keysFile   = "/home/anna/.ssh/authorized_keys"
)

// base is what sshd -T prints on Debian 12, as far as it counts here.
const base = "permitrootlogin yes\nusepam yes\npubkeyauthentication yes\nkbdinteractiveauthentication yes\nstrictmodes yes\n" +
	"authenticationmethods publickey,keyboard-interactive\nauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\n" +
	"authorizedkeyscommand none\ntrustedusercakeys none\nforcecommand none\nchrootdirectory none\nrequiredrsasize 2048\n" +
	"pubkeyacceptedalgorithms ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512\n"

// A machine is a root with the user anna, who can log in.
type machine struct {
	*testing.T
	t    *target.Target
	rec  *targettest.Recorder
	sshd string // what sshd -T prints
	user target.User
}

func newMachine(t *testing.T) *machine {
	tt, rec := targettest.New(t)
	m := &machine{T: t, t: tt, rec: rec, sshd: base, user: target.User{Name: "anna", UID: 1000, GID: 1000, Home: "/home/anna", Shell: "/bin/bash"}}
	rec.Handle = func(argv []string) targettest.Answer {
		if argv[0] == target.SSHD {
			return targettest.Answer{Stdout: m.sshd}
		}
		return targettest.Answer{}
	}
	m.put(target.DebianVersion, "12.5\n", 0o644)
	m.put("/bin/bash", "", 0o755)
	m.put("/bin/false", "", 0o755)
	m.put(target.Passwd, "root:x:0:0::/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/bash\nbert:x:1001:1001::/home/bert:/bin/bash\n", 0o644)
	m.put(target.Group, "anna:x:1000:\nbert:x:1001:\nstaff:x:50:bert,anna\nteam:x:60:bert\n", 0o644)
	m.put(target.Shadow, "anna:!:19000:0:99999:7:::\n", 0o640)
	m.put(target.SSHDConfig, "Include /etc/ssh/sshd_config.d/*.conf\n", 0o644)
	m.keys(ed25519Key)
	return m
}

func (m *machine) put(name, content string, mode os.FileMode) {
	m.Helper()
	targettest.Put(m.T, m.t, name, content, mode)
}

func (m *machine) remove(name string) {
	m.Helper()
	if err := m.t.Remove(name); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) chown(name string, uid, gid int) {
	m.Helper()
	if err := os.Chown(filepath.Join(m.t.Root(), name), uid, gid); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) chmod(name string, mode os.FileMode) {
	m.Helper()
	if err := os.Chmod(filepath.Join(m.t.Root(), name), mode); err != nil {
		m.Fatal(err)
	}
}

// keys writes anna's authorized_keys.
func (m *machine) keys(text string) {
	m.Helper()
	m.put(keysFile, text+"\n", 0o600)
	for _, name := range []string{"/home/anna", "/home/anna/.ssh", keysFile} {
		m.chown(name, 1000, 1000)
	}
}

// set changes one line of sshd -T, or adds it.
func (m *machine) set(keyword, value string) {
	var lines []string
	for l := range strings.Lines(m.sshd) {
		if !strings.HasPrefix(l, keyword+" ") {
			lines = append(lines, l)
		}
	}
	m.sshd = strings.Join(lines, "") + keyword + " " + value + "\n"
}

func (m *machine) check() Verdict {
	return New(m.t, Options{Now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}).Check(context.Background(), m.user)
}

// TestReasons has one row for every reason, and those that must not be taken for
// one. acctest's TestVerdicts compares the same with real logins.
func TestReasons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(&rsa2048.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048Key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	covered := map[Reason]bool{}
	for i, tt := range []struct {
		change func(m *machine)
		want   Reason // empty: can log in, and everything is known
	}{
		{func(m *machine) {}, ""},
		{func(m *machine) { m.user.Shell = "/bin/zsh" }, ShellMissing},
		{func(m *machine) { m.chmod("/bin/bash", 0o644) }, ShellMissing},
		{func(m *machine) { m.user.Shell = "/bin/false" }, ShellNoLogin},
		{func(m *machine) { m.put(target.NoLogin, "", 0o644) }, NoLogin},
		{func(m *machine) { m.put(target.NoLogin, "", 0o644); m.asRoot() }, ""},
		{func(m *machine) { m.put("/run/nologin", "", 0o644) }, ""},
		{func(m *machine) { m.put(target.Shadow, "anna:!:19000:0:99999:7::20000:\n", 0o640) }, AccountExpired},
		{func(m *machine) { m.put(target.Shadow, "anna:!:19000:0:99999:7::99999:\n", 0o640) }, ""},
		{func(m *machine) { m.put(target.Shadow, "anna:!:19000:0:90:7:::\n", 0o640) }, PasswordExpired},
		{func(m *machine) { m.put(target.Shadow, "anna:!:19000:0:90:7:5::\n", 0o640) }, PasswordExpired},
		{func(m *machine) { m.put(target.Shadow, "anna:!:0:0:99999:7:::\n", 0o640) }, PasswordChange},
		{func(m *machine) { m.put(target.Shadow, "anna:!::0:90:7:::\n", 0o640) }, PasswordUndated},
		{func(m *machine) { m.put(target.Shadow, "anna:*:::::::\n", 0o640) }, ""},
		{func(m *machine) { m.put(target.Shadow, "bert:!:0:0:99999:7:::\n", 0o640) }, ""},
		{func(m *machine) { m.put(target.Shadow, "garbage\nanna:::\n", 0o640) }, ""},

		{func(m *machine) {
			m.rec.Handle = func([]string) targettest.Answer {
				return targettest.Answer{Stderr: "bad option", Err: fmt.Errorf("x: %w", exitError(m.T))}
			}
		}, SSHDRejects},
		{func(m *machine) {
			m.rec.Handle = func([]string) targettest.Answer { return targettest.Answer{Err: context.DeadlineExceeded} }
		}, NotJudged},
		{func(m *machine) { m.sshd = "" }, NotJudged},
		{func(m *machine) { m.set("denyusers", "a*") }, DenyUsers},
		{func(m *machine) { m.set("denyusers", "b*"); m.sshd += "denyusers an?a\n" }, DenyUsers},
		{func(m *machine) { m.set("denyusers", "b*") }, ""},
		{func(m *machine) { m.set("denyusers", "anna@192.0.2.*") }, HostRule},
		{func(m *machine) { m.set("allowusers", "bert") }, AllowUsers},
		{func(m *machine) { m.set("allowusers", "bert"); m.sshd += "allowusers anna\n" }, ""},
		{func(m *machine) { m.set("allowusers", "anna@192.0.2.*") }, HostRule},
		{func(m *machine) { m.set("denygroups", "sta*") }, DenyGroups},
		{func(m *machine) { m.set("denygroups", "team") }, ""},
		{func(m *machine) { m.set("allowgroups", "team") }, AllowGroups},
		{func(m *machine) { m.set("allowgroups", "anna") }, ""},
		{func(m *machine) { m.asRoot(); m.set("permitrootlogin", "without-password") }, RootLogin},
		{func(m *machine) { m.asRoot(); m.set("permitrootlogin", "no") }, RootLogin},
		{func(m *machine) { m.asRoot() }, ""},
		{func(m *machine) { m.set("permitrootlogin", "no") }, ""},
		{func(m *machine) { m.set("refuseconnection", "yes") }, RefuseConnection},
		{func(m *machine) { m.set("refuseconnection", "no") }, ""},
		{func(m *machine) { m.set("authenticationmethods", "password") }, Methods},
		{func(m *machine) { m.set("authenticationmethods", "publickey,keyboard-interactive:pam") }, ""},
		{func(m *machine) { m.set("authenticationmethods", "publickey") }, ""}, // exempt
		{func(m *machine) { m.set("usepam", "no") }, Methods},
		{func(m *machine) { m.set("pubkeyauthentication", "no") }, Methods},
		{func(m *machine) { m.set("kbdinteractiveauthentication", "no") }, Methods},
		{func(m *machine) { m.set("forcecommand", "/bin/date") }, ForceCommand},
		{func(m *machine) { m.set("forcecommand", "internal-sftp") }, ""},
		{func(m *machine) { m.set("chrootdirectory", "/srv") }, Chroot},
		{func(m *machine) { // OpenSSH 10.6 prints keywords in mixed case
			m.sshd = strings.Replace(m.sshd, "authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2", "AuthorizedKeysFile none", 1)
		}, KeysOff},
		{func(m *machine) {
			m.set("authorizedkeysfile", "none")
			m.set("authorizedkeyscommand", "/usr/bin/sss_ssh_authorizedkeys")
		}, KeysCommand},
		{func(m *machine) { m.set("authorizedkeysfile", "none"); m.set("trustedusercakeys", "/etc/ssh/ca.pub") }, UserCA},
		{func(m *machine) {
			m.set("authorizedkeysfile", "/etc/keys/%u.%%")
			m.put("/etc/keys/anna.%", ed25519Key, 0o644)
		}, ""},
		{func(m *machine) {
			m.set("authorizedkeysfile", "%h/k-%U")
			m.put("/home/anna/k-1000", ed25519Key, 0o644)
		}, ""},
		{func(m *machine) { m.set("authorizedkeysfile", "k"); m.put("/home/anna/k", ed25519Key, 0o644) }, ""},
		{func(m *machine) { m.set("authorizedkeysfile", "/etc/keys/%u") }, KeysMissing},

		{func(m *machine) { m.user.Home = "/nowhere" }, KeysMissing},
		{func(m *machine) { m.user.Home = "" }, KeysMissing},
		{func(m *machine) { m.chown(keysFile, 0, 0) }, KeysUnreadable},
		{func(m *machine) { m.chown(keysFile, 0, 0); m.chmod(keysFile, 0o644) }, ""},
		{func(m *machine) { m.chown(keysFile, 0, 50); m.chmod(keysFile, 0o640) }, ""}, // by the group
		{func(m *machine) { m.chmod("/home/anna", 0o600) }, KeysUnreadable},
		{func(m *machine) { m.chmod("/home", 0o700) }, KeysUnreadable},
		{func(m *machine) { m.chown(keysFile, 1001, 1001); m.chmod(keysFile, 0o644) }, KeysMode},
		{func(m *machine) { m.chmod(keysFile, 0o666) }, KeysMode},
		{func(m *machine) { m.chmod("/home/anna/.ssh", 0o777) }, KeysMode},
		{func(m *machine) { m.chmod("/home/anna", 0o777) }, KeysMode},
		{func(m *machine) { m.chmod("/home/anna", 0o777); m.set("strictmodes", "no") }, ""},
		{func(m *machine) { m.chmod("/home", 0o777) }, ""}, // above the home
		{func(m *machine) { m.chmod("/home/anna", 0o770) }, ""},
		{func(m *machine) { m.chmod("/home/anna", 0o770); m.remove(target.DebianVersion) }, KeysMode},
		{func(m *machine) { m.chmod("/home/anna", 0o770); m.chown("/home/anna", 1000, 60) }, KeysMode},

		{func(m *machine) { m.keys("") }, KeysEmpty},
		{func(m *machine) { m.keys("# " + ed25519Key) }, KeysEmpty},
		{func(m *machine) { m.keys(ed25519Key[:40]) }, KeyMalformed},
		{func(m *machine) { m.keys(`environment="A=b ` + ed25519Key) }, KeyMalformed},
		{func(m *machine) { m.keys("ecdsa-sha2-nistp256 " + strings.Fields(ed25519Key)[1]) }, KeyMalformed},
		{func(m *machine) { m.keys(certKey) }, KeyMalformed}, // cut short
		{func(m *machine) { m.keys(m.certificate()) }, KeyCertificate},
		{func(m *machine) { m.keys(`restrict,pty,command="/usr/bin/backup --to 'x y'" ` + ed25519Key) }, KeyForced},
		{func(m *machine) { m.keys(`command="a \" b, c" ` + ed25519Key + "\n\t" + ecdsaKey) }, ""},
		{func(m *machine) { m.keys(`from="198.51.100.0/24,2001:db8::/32",no-agent-forwarding ` + ed25519Key) }, KeyFrom},
		{func(m *machine) { m.keys(`from="198.51.100.0/24" ` + ed25519Key + "\n" + ecdsaKey) }, ""},
		{func(m *machine) { m.keys("cert-authority,principals=\"anna\" " + ed25519Key) }, UserCA},
		{func(m *machine) { m.keys(rsa1024Key) }, KeyTooShort},
		{func(m *machine) { m.keys(rsa2048Key) }, ""},
		{func(m *machine) { m.keys(rsa2048Key); m.set("requiredrsasize", "3072") }, KeyTooShort},
		{func(m *machine) { m.keys(rsa2048Key); m.set("pubkeyacceptedalgorithms", "ssh-ed25519") }, KeyType},
		{func(m *machine) { // Debian 11
			m.set("pubkeyacceptedkeytypes", "ecdsa-*")
			m.sshd = strings.Replace(m.sshd, "pubkeyacceptedalgorithms ", "x ", 1)
		}, KeyType},
		{func(m *machine) { m.keys("no-such-option " + ed25519Key) }, KeyOptions},
		{func(m *machine) { m.keys(`expiry-time="20200101" ` + ed25519Key) }, KeyExpired},
		{func(m *machine) { m.keys(`expiry-time="20991231Z" ` + ed25519Key) }, ""},
		{func(m *machine) { m.user.Directory = true }, DirectoryAccount},
	} {
		m := newMachine(t)
		tt.change(m)
		v := m.check()
		covered[tt.want] = true
		if tt.want == "" {
			if len(v.Problems)+len(v.Unknown) > 0 {
				t.Errorf("row %d: %+v, want none", i, v)
			}
			continue
		}
		if !v.Has(tt.want) || len(v.Problems)+len(v.Unknown) != 1 || v.Can() != reasons[tt.want].unknown {
			t.Errorf("row %d: %+v, want %v", i, v, tt.want)
			continue
		}
		for _, p := range append(slices.Clone(v.Problems), v.Unknown...) {
			if !errors.Is(p, tt.want) || strings.Contains(p.Error(), "\n") || v.Can() == (p.Fix != "") || strings.Contains(p.Fix, "USER") || strings.Contains(p.Fix, "DETAIL") {
				t.Errorf("row %d: %q", i, p.Error())
			}
		}
	}
	covered[NotAsked] = true // TestAskedSeldom
	for r := range reasons {
		if !covered[r] {
			t.Errorf("%s: no row", r)
		}
	}
}

// TestFixRepairs: a remedy that begins with a command that only shows the fault also
// says what to change.
func TestFixRepairs(t *testing.T) {
	for r, d := range reasons {
		for _, show := range []string{"grep ", "sshd -t", "ssh-keygen -l"} {
			if _, rest, _ := strings.Cut(d.fix, "; "); strings.HasPrefix(d.fix, show) && rest == "" {
				t.Errorf("%s: %q only shows the fault", r, d.fix)
			}
		}
		if strings.Contains(d.fix, "/etc/ssh") && !strings.HasSuffix(d.fix, thenReload) {
			t.Errorf("%s: %q leaves the old setting or the notice", r, d.fix)
		}
	}
}

func (m *machine) asRoot() {
	m.user = target.User{Name: "root", Home: "/root", Shell: "/bin/bash"}
	m.put("/root/.ssh/authorized_keys", ed25519Key, 0o600)
}

// certificate signs anna's key.
func (m *machine) certificate() string {
	m.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(ed25519Key))
	if err != nil {
		m.Fatal(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		m.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		m.Fatal(err)
	}
	c := &ssh.Certificate{Key: key, CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, signer); err != nil {
		m.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(c)))
}

// exitError is a command that ended with status 1.
func exitError(t *testing.T) error {
	t.Helper()
	err := exec.Command("false").Run()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Fatal(err)
	}
	return err
}

// TestAskedSeldom: sshd is asked once for all users whom no Match block tells apart,
// and not more often than the limit.
func TestAskedSeldom(t *testing.T) {
	for name, tt := range map[string]struct {
		conf  string
		users int
		want  int
	}{
		"no Match":        {"", 200, 1},
		"Match all":       {"Match all\nMaxSessions 3\n", 200, 1},
		"Match User":      {"Match User u7,u8\n", 200, 3},
		"Match user=":     {"match user=u7\n", 200, 2},
		"patterns":        {"Match User *,!u7\nMatch User u1*\n", 200, 3},
		"Match Group":     {"Match Group team\n", 200, 2},
		"Match Address":   {"Match Address 10.0.0.0/8\n", 200, 1},
		"Match exec":      {"Match exec \"/bin/true\"\n", 5, 5},
		"Match exec many": {"Match exec \"/bin/true\"\n", 200, MaxAsked},
		"each has a rule": {strings.Repeat("Match User uX\n", 200), 200, MaxAsked},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			conf := tt.conf
			for i := 0; strings.Contains(conf, "uX"); i++ {
				conf = strings.Replace(conf, "uX", fmt.Sprintf("u%d", i), 1)
			}
			m.put("/etc/ssh/sshd_config.d/10-x.conf", conf, 0o644)
			m.put(target.Group, "team:x:60:u3,u4\n", 0o644)
			c := New(m.t, Options{IgnoreKeys: true})
			unasked := 0
			for i := range tt.users {
				v := c.Check(t.Context(), target.User{Name: fmt.Sprintf("u%d", i), UID: 2000 + i, Home: "/h", Shell: "/bin/bash"})
				if v.Has(NotAsked) {
					unasked++
				}
			}
			asked := len(m.rec.Calls())
			if asked != tt.want {
				t.Errorf("asked %d times, want %d", asked, tt.want)
			}
			if tt.want == MaxAsked && unasked != tt.users-MaxAsked || tt.want < MaxAsked && unasked != 0 {
				t.Errorf("%d users were not asked about", unasked)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false}, {"*", "", true}, {"*", "abc", true},
		{"a*", "a", true}, {"a*", "abc", true}, {"a*c", "abc", true}, {"a*c", "abd", false}, {"*b*", "abc", true}, {"?", "a", true},
		{"?", "", false}, {"a?c", "abc", true}, {"*?", "", false}, {"*?", "a", true}, {"a**b", "ab", true}, {"*a*a*b", "aaab", true},
		{"!a", "a", false}, {"!a", "!a", true},
	} {
		if got := match(tt.pattern, tt.name); got != tt.want {
			t.Errorf("match(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

// TestPrintable: what a file or a name holds does not steer a terminal.
func TestPrintable(t *testing.T) {
	m := newMachine(t)
	m.user.Shell = "/bin/\x1b[2J\u202e\n" + strings.Repeat("x/", 500)
	v := m.check()
	if len(v.Problems) != 1 || len(v.Problems[0].Error()) > 600 || strings.ContainsFunc(v.Problems[0].Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("%+q", v.Problems)
	}
}

func FuzzLine(f *testing.F) {
	f.Add(ed25519Key)
	f.Add(`command="a",from="*",expiry-time="20200101" ` + ed25519Key)
	f.Add(`no-pty ` + certKey)
	f.Fuzz(func(t *testing.T, s string) {
		r := newKeyRules(parseSettings([]byte(base)), time.Unix(1e9, 0))
		if l := r.judge([]byte(s)); !l.good && !l.from && !l.ca && len(l.bad) == 0 {
			t.Errorf("%q: neither good nor bad", s)
		}
	})
}

// BenchmarkKeys reads a file of 1 MiB in which no key is good.
func BenchmarkKeys(b *testing.B) {
	line := `command="x" ` + ed25519Key + "\n"
	for _, n := range []int{100, 1000, 8000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text := []byte(strings.Repeat(line, n))
			r := newKeyRules(parseSettings([]byte(base)), time.Unix(1e9, 0))
			for b.Loop() {
				if r.judge(text).good {
					b.Fatal("good")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/key")
		})
	}
}
