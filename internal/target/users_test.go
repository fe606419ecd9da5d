// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestValidUserName(tt *testing.T) {
	for _, name := range []string{"root", "alice", "_apt", "a", "web-1.x_y", strings.Repeat("a", 32)} {
		if err := ValidUserName(name); err != nil {
			tt.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "-rf", ".", "..", "a/b", "../x", "a:b", "Alice", "1a", "a b", "a\n", "a~b", "a,b", "é", strings.Repeat("a", 33)} {
		if err := ValidUserName(name); !errors.Is(err, ErrUserName) {
			tt.Errorf("%q: %v", name, err)
		}
	}
}

func TestUsers(tt *testing.T) {
	t := open(tt)
	put(tt, t, Passwd, "root:x:0:0:root:/root:/bin/bash\n"+
		"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"+
		"# comment:x:5:5::/:/bin/sh\n+nis::::::\nshort:x:1\nbad:x:-1:0::/:/bin/sh\n"+
		"alice:x:1000:1000:Alice,,,:/home/alice:\r\n"+
		"alice:x:0:0:again:/root:/bin/sh\n"+
		"bob:x:1001:1001::/home/bob:/bin/false", 0o644)
	us, err := t.Users()
	if err != nil {
		tt.Fatal(err)
	}
	want := []User{
		{"root", 0, 0, "/root", "/bin/bash", false},
		{"daemon", 1, 1, "/usr/sbin", "/usr/sbin/nologin", false},
		{"alice", 1000, 1000, "/home/alice", "", false},
		{"bob", 1001, 1001, "/home/bob", "/bin/false", false},
	}
	if len(us) != len(want) {
		tt.Fatalf("got %v", us)
	}
	for i, can := range []bool{true, false, true, false} {
		if us[i] != want[i] || us[i].CanLogin() != can {
			tt.Errorf("%+v, can log in: %v; want %+v, %v", us[i], us[i].CanLogin(), want[i], can)
		}
	}
}

// A file that is not the whole one is not believed.
func TestUsersOfACutFile(tt *testing.T) {
	const root, alice = "root:x:0:0:root:/root:/bin/bash\n", "alice:x:1000:1000::/home/alice:/bin/sh\n"
	for text, want := range map[string]error{
		"": ErrPasswd, "\n": ErrPasswd, "\x00\x00\x00": ErrPasswd, alice: ErrPasswd, root[:20]: ErrPasswd,
		root + alice[:30]: ErrPasswd, root + "al": ErrPasswd,
		root: nil, root + alice: nil, root + alice[:len(alice)-1]: nil, alice + root: nil, root + "+": nil, root + "# end": nil,
		"toor:x:0:0::/root:/bin/sh\n": nil,
	} {
		t := open(tt)
		put(tt, t, Passwd, text, 0o644)
		if us, err := t.Users(); !errors.Is(err, want) || err != nil && us != nil {
			tt.Errorf("%q: %v, %v; want %v", text, us, err, want)
		}
	}
}

func TestInShadow(tt *testing.T) {
	t := open(tt)
	if is, err := t.InShadow("alice"); is || err != nil {
		tt.Errorf("without the file: %v, %v", is, err)
	}
	put(tt, t, Shadow, "root:*::\nalice:!:19000:0:99999:7:::\nbob", 0o600)
	for name, want := range map[string]bool{"root": true, "alice": true, "ali": false, "bob": false, "carol": false} {
		if is, err := t.InShadow(name); is != want || err != nil {
			tt.Errorf("%s: %v, %v; want %v", name, is, err, want)
		}
	}
}

func FuzzPasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\n")
	f.Add(":::::::\n\n+::::::")
	f.Fuzz(func(tt *testing.T, s string) {
		seen := map[string]bool{}
		for _, u := range parsePasswd(s) {
			if u.Name == "" || u.UID < 0 || u.GID < 0 || seen[u.Name] {
				tt.Fatalf("%q: %+v", s, u)
			}
			seen[u.Name] = true
		}
	})
}

// testKey makes a public key line; equal numbers give equal keys.
func testKey(tb testing.TB, n byte) (line, blob string) {
	tb.Helper()
	pub, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+n)), 32))).Public())
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))), base64.StdEncoding.EncodeToString(pub.Marshal())
}

func TestLoginKeys(tt *testing.T) {
	t := open(tt)
	k1, b1 := testKey(tt, 1)
	k2, b2 := testKey(tt, 2)
	k3, b3 := testKey(tt, 3)
	k4, _ := testKey(tt, 4)
	u := User{Name: "alice", UID: os.Geteuid(), Home: "/home/alice"}
	put(tt, t, "/home/alice/.ssh/authorized_keys", "# comment\n\n"+k1+" alice@desk\nnot a key\n"+
		`no-port-forwarding,command="echo \"Please login as the user\"; sleep 10" `+k2+"\n"+
		"cert-authority "+k4+"\n"+k1+" twice\n", 0o600)
	put(tt, t, "/home/alice/.ssh/authorized_keys2", k3, 0o644)
	got, err := t.LoginKeys(u)
	want := []LoginKey{{"ssh-ed25519", b1, false}, {"ssh-ed25519", b2, true}, {"ssh-ed25519", b3, false}}
	if err != nil || len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		tt.Errorf("got %+v, %v", got, err)
	}
	if got, err := t.LoginKeys(User{Name: "none", Home: "/home/none"}); got != nil || err != nil {
		tt.Errorf("no home: %v, %v", got, err)
	}
	if got, err := t.LoginKeys(User{Name: "odd", Home: ""}); got != nil || err != nil {
		tt.Errorf("no home in passwd: %v, %v", got, err)
	}
}

func TestLoginKeysTrust(tt *testing.T) {
	if os.Geteuid() != 0 {
		tt.Skip("only root can give files away")
	}
	k1, _ := testKey(tt, 1)
	const alice, eve = 1000, 1001
	for _, test := range []struct {
		name  string
		owner int
		mode  os.FileMode
		link  string // authorized_keys leads there
		want  int
	}{
		{name: "her own", owner: alice, mode: 0o600, want: 1},
		{name: "root's, in her home", owner: 0, mode: 0o644, want: 1},
		{name: "another user's", owner: eve, mode: 0o600},
		{name: "writable by the group", owner: alice, mode: 0o620},
		{name: "a link to a file of root's", owner: 0, mode: 0o600, link: "/root/.ssh/authorized_keys"},
		{name: "a link to her own", owner: alice, mode: 0o600, link: "/srv/alice.keys", want: 1},
		{name: "a link out of the root", owner: alice, mode: 0o600, link: "/../../../../../../../../etc/passwd"},
	} {
		t := open(tt)
		const file = "/home/alice/.ssh/authorized_keys"
		real := file
		if test.link != "" {
			link(tt, t, test.link, file)
			real = test.link
		}
		if !strings.Contains(real, "..") {
			put(tt, t, real, k1+"\n", test.mode)
			if err := os.Chown(t.host(real), test.owner, test.owner); err != nil {
				tt.Fatal(err)
			}
		}
		keys, err := t.LoginKeys(User{Name: "alice", UID: alice, Home: "/home/alice"})
		if err != nil || len(keys) != test.want {
			tt.Errorf("%s: %d keys, %v; want %d", test.name, len(keys), err, test.want)
		}
	}
}

// TestLoginKeysOpensNoDevice: what is no file is not even opened. A socket says
// so: to open one is an error.
func TestLoginKeysOpensNoDevice(tt *testing.T) {
	t := open(tt)
	if err := t.Mkdir("/run", 0o755); err != nil {
		tt.Fatal(err)
	}
	l, err := net.Listen("unix", t.host("/run/s"))
	if err != nil {
		tt.Fatal(err)
	}
	defer l.Close()
	link(tt, t, "/run/s", "/home/alice/.ssh/authorized_keys")
	if keys, err := t.LoginKeys(User{Name: "alice", UID: os.Geteuid(), Home: "/home/alice"}); keys != nil || err != nil {
		tt.Errorf("%v, %v", keys, err)
	}
}

func FuzzAuthorizedKeys(f *testing.F) {
	k, _ := testKey(f, 1)
	f.Add([]byte(k))
	f.Add([]byte(`command="x",from="*" ` + k + "\ncert-authority " + k))
	f.Fuzz(func(tt *testing.T, b []byte) {
		for _, k := range parseAuthorizedKeys(b) {
			if _, err := base64.StdEncoding.DecodeString(k.Blob); err != nil || k.Type == "" {
				tt.Fatalf("%+v", k)
			}
		}
	})
}

func TestHostKeys(tt *testing.T) {
	t := open(tt)
	if keys, err := t.HostKeys(); keys != nil || err != nil {
		tt.Errorf("no directory: %v, %v", keys, err)
	}
	k1, b1 := testKey(tt, 1)
	put(tt, t, "/etc/ssh/ssh_host_ed25519_key.pub", k1+" root@image\n", 0o644)
	put(tt, t, "/etc/ssh/ssh_host_rsa_key.pub", "", 0o644)
	put(tt, t, "/etc/ssh/ssh_host_ed25519_key", "PRIVATE", 0o600)
	put(tt, t, "/etc/ssh/other.pub", k1, 0o644)
	if keys, err := t.HostKeys(); err != nil || len(keys) != 1 || keys[0] != "ssh-ed25519 "+b1 {
		tt.Errorf("got %v, %v", keys, err)
	}
}

// BenchmarkLoginKeys reads two files of keys, all different, as large as the agent
// reads them.
func BenchmarkLoginKeys(b *testing.B) {
	for _, n := range []int{800, 12000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			t := open(b)
			for i, f := range AuthorizedKeys {
				put(b, t, "/home/alice/"+f, manyKeys(i*n, n), 0o600)
			}
			u := User{Name: "alice", UID: os.Geteuid(), Home: "/home/alice"}
			for b.Loop() {
				if keys, err := t.LoginKeys(u); err != nil || len(keys) != 2*n {
					b.Fatal(len(keys), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*n), "ns/key")
		})
	}
}

// manyKeys are lines of n different Ed25519 keys.
func manyKeys(first, n int) string {
	var s strings.Builder
	for i := range n {
		blob := []byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + strings.Repeat("k", 28) + "1234")
		binary.BigEndian.PutUint32(blob[len(blob)-4:], uint32(first+i))
		s.WriteString("ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + "\n")
	}
	return s.String()
}
