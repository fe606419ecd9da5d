// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// What a machine may be like at its first boot.

// A disk that is full fails at another step for every amount of space that is
// left. After each failure nothing is half written, and with space again the
// next boot enrolls everybody.
func TestDiskFullWhileEnrolling(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	// The agent's directories move to a small disk; /run does not, as on a server.
	m.must("sh", "-euc", `mkdir /disk && mount -t tmpfs -o size=4k,mode=0755 tmpfs /disk
mkdir -m 0700 /disk/totp-agent /disk/google-authenticator
for d in totp-agent google-authenticator; do
	mkdir -p /var/lib/$d && chmod 0700 /var/lib/$d && mount --bind /disk/$d /var/lib/$d
done`)
	failures := 0
	for kib := 4; ; kib += 4 { // tmpfs gives out pages
		if kib > 512 {
			t.Fatal("no disk is large enough")
		}
		m.must("mount", "-o", fmt.Sprintf("remount,size=%dk", kib), "/disk")
		s := m.agent("enroll")
		whole := m.whole()
		if s.code == 0 {
			if !slices.Equal(whole, []string{"alice", "bob"}) {
				t.Errorf("with %d KiB: exit 0, enrolled %v", kib, whole)
			}
			break
		}
		failures++
		st := m.status()
		if s.code != 1 || st.Error == "" || s.err == "" {
			t.Errorf("with %d KiB: exit %d, status %q, said %q", kib, s.code, st.Error, s.err)
		}
		if len(whole) == 0 && st.Notice == "" {
			t.Errorf("with %d KiB: nobody can log in, and no notice says so", kib)
		}
	}
	t.Logf("%d runs failed for want of space", failures)
	if failures < 3 {
		t.Errorf("only %d runs failed: the disk was not small enough for this test", failures)
	}
	// All are enrolled, and a login may have no room yet: the notice says that.
	if st := m.status(); st.Error != "" || st.Notice != "" && st.NoticeCode != enroll.CodeDiskFull {
		t.Errorf("after success: error %q, notice %q", st.Error, st.Notice)
	}
	m.must("mount", "-o", "remount,size=4m", "/disk")
	m.ok("enroll")
	if st := m.status(); st.Error != "" || st.Notice != "" {
		t.Errorf("with room: error %q, notice %q", st.Error, st.Notice)
	}
	m.ok("deliver")
	for _, user := range []string{"alice", "bob"} {
		c := m.cardInside(user)
		if got := m.enters(m.serve(c), c, login.NewCodes(c.Secret, nil)); got != login.In {
			t.Errorf("%s: %v", user, got)
		}
	}
}

func TestReadOnlyWhileEnrolling(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.must("sh", "-euc", "mount --bind /var/lib /var/lib && mount -o remount,bind,ro /var/lib")
	s := m.agent("enroll")
	if s.code != 1 || s.err == "" {
		t.Errorf("exit %d, said %q", s.code, s.err)
	}
	if st := m.status(); st.Error == "" || st.Notice == "" {
		t.Errorf("status: error %q, notice %q", st.Error, st.Notice)
	}
	if got := m.list(pamStates); len(got) != 0 {
		t.Errorf("state files %v", got)
	}
	m.must("umount", "/var/lib")
	if cards := m.firstBoot(); len(cards) != 2 {
		t.Errorf("%d cards after the disk can be written again", len(cards))
	}
	if st := m.status(); st.Error != "" || st.Notice != "" {
		t.Errorf("after success: error %q, notice %q", st.Error, st.Notice)
	}
}

// However many agents start at once, each user ends with one live secret, and
// its envelope is the one that is delivered.
func TestTwoAgentsAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	var wg sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		wg.Go(func() {
			cmd := m.Command(t.Context(), agentPath, "enroll")
			_ = cmd.Run() // only the exit status tells
			codes[i] = cmd.ProcessState.ExitCode()
		})
	}
	wg.Wait()
	if !slices.Contains(codes, 0) {
		t.Fatalf("exits %v: none succeeded", codes)
	}
	for _, code := range codes {
		if code != 0 && code != 1 {
			t.Errorf("exits %v, want 0 or 1", codes)
		}
	}
	if got := m.whole(); !slices.Equal(got, []string{"alice", "bob"}) {
		t.Errorf("enrolled %v", got)
	}
	m.ok("deliver")
	cards := m.cards() // fails on two envelopes of one user
	server := m.serve(cards["alice"])
	for user, c := range cards {
		if got := m.enters(server, c, login.NewCodes(c.Secret, nil)); got != login.In {
			t.Errorf("%s: %v", user, got)
		}
	}
}

// Directories that somebody else could read or move are not written to.
func TestForeignStateDirectories(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"/var/lib/totp-agent", "/var/lib/google-authenticator"} {
		for name, script := range map[string]string{
			"a symbolic link":  `rm -rf "$1"; mkdir -m 0700 /root/elsewhere; ln -s /root/elsewhere "$1"`,
			"of somebody else": `rm -rf "$1"; mkdir -m 0700 "$1"; chown alice "$1"`,
			"a file":           `rm -rf "$1"; echo x >"$1"`,
		} {
			t.Run(dir+" is "+name, func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				m.must("sh", "-euc", script, "sh", dir)
				s := m.agent("enroll")
				if s.code != 1 || !strings.Contains(s.err, dir) {
					t.Errorf("exit %d, said %q; want 1 and the directory's name", s.code, s.err)
				}
				found := m.must("sh", "-c", `ls -A /root/elsewhere 2>/dev/null; find /var/lib/google-authenticator/ /var/lib/totp-agent/outbox/ready/ -mindepth 1 2>/dev/null || :`)
				if found != "" {
					t.Errorf("wrote %q", found)
				}
				if st := m.status(); st.Error == "" || st.Notice == "" {
					t.Errorf("status: error %q, notice %q", st.Error, st.Notice)
				}
			})
		}
	}
}

// Wherever the image's policy ends before its end, it is refused with file and
// line, and nobody is enrolled by what is left of it.
func TestCutShortPolicy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	whole, err := os.ReadFile(m.Path("/etc/totp-agent/image.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`image\.yaml:[1-9][0-9]*`)
	for _, size := range []int{0, 1, len(whole) / 4, len(whole) / 2, len(whole) * 3 / 4, len(whole) - 5, len(whole) - 4, len(whole) - 2} {
		if err := os.WriteFile(m.Path("/etc/totp-agent/image.yaml"), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		place := line
		if size <= 1 {
			place = regexp.MustCompile(`image\.yaml`) // an empty file has no line, nor has one with half a comment
		}
		s := m.agent("enroll")
		if s.code != 2 || !place.MatchString(s.err) {
			t.Errorf("%d of %d bytes: exit %d, said %q; want 2, file and line", size, len(whole), s.code, s.err)
		}
		if st := m.status(); !place.MatchString(st.Error) || st.Notice == "" {
			t.Errorf("%d of %d bytes: status: error %q, notice %q", size, len(whole), st.Error, st.Notice)
		}
		if got := m.list(pamStates); len(got) != 0 {
			t.Fatalf("%d of %d bytes: state files %v", size, len(whole), got)
		}
	}
	if err := os.WriteFile(m.Path("/etc/totp-agent/image.yaml"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if cards := m.firstBoot(); len(cards) != 2 {
		t.Errorf("%d cards with the whole policy", len(cards))
	}
}

// A clone of a machine loses its original's secrets before anybody can use them.
func TestACloneGetsSecretsOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	old := m.firstBoot()["alice"]
	m.must("sh", "-c", newMachineID)
	m.ok("enroll")
	m.ok("deliver")
	fresh := m.otherThan(old.ID, "alice")
	server := m.serve(fresh)
	if got := m.enters(server, fresh, login.NewCodes(fresh.Secret, nil)); got != login.In {
		t.Errorf("with the clone's secret: %v", got)
	}
	if got := m.enters(server, old, login.NewCodes(old.Secret, nil)); got != login.Refused {
		t.Errorf("with the original's secret: %v", got)
	}
}

// cardInside opens a user's envelope where it is on a disk that only the machine
// sees.
func (m *machine) cardInside(user string) card.Card {
	m.t.Helper()
	file := filepath.Join(m.dir, user+".age")
	if err := os.WriteFile(file, []byte(m.must("sh", "-c", "cat "+envelopes+"/"+user+".*")), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return m.open(user, file)
}

// otherThan opens a user's envelope that is not that of id.
func (m *machine) otherThan(id, user string) card.Card {
	m.t.Helper()
	for _, name := range m.list(envelopes) {
		if strings.HasPrefix(name, user+".") && !strings.Contains(name, id) {
			return m.open(user, m.Path(envelopes+"/"+name))
		}
	}
	m.t.Fatalf("no other envelope of %s than %s", user, id)
	return card.Card{}
}

// whole returns the users with a state file, and fails the test where one of them
// is not whole, is without its envelope, or where there is anything else.
func (m *machine) whole() []string {
	m.t.Helper()
	var users []string
	ready := strings.Fields(m.must("ls", "-A", "/var/lib/totp-agent/outbox/ready"))
	for _, name := range strings.Fields(m.must("ls", "-A", pamStates)) {
		users = append(users, name)
		s, err := otp.ParseState([]byte(m.must("cat", pamStates+"/"+name)))
		if err != nil {
			m.t.Errorf("state file of %s: %v", name, err)
			continue
		}
		if s.Secret == "" || len(s.BackupCodes) != 4 {
			m.t.Errorf("state file of %s is cut short", name)
		}
		i := slices.Index(ready, s.Mark.ID)
		if i < 0 {
			m.t.Errorf("the envelope of %s is not ready", name)
			continue
		}
		ready = slices.Delete(ready, i, i+1)
	}
	if len(ready) > 0 {
		m.t.Errorf("envelopes without a state file: %v", ready)
	}
	return users
}
