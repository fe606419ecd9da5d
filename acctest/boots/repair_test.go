// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// attempts are logins with key and password, one after another in several threads,
// while something happens to the server.
type attempts struct {
	mu   sync.Mutex
	all  int
	in   []time.Time // when those began that succeeded
	last time.Time   // when the last of them ended
	stop func()
}

// tryPassword starts login attempts of root and of carol, a user without an enrollment.
func (s *server) tryPassword(at login.Server) *attempts {
	ctx, cancel := context.WithCancel(s.t.Context())
	a := new(attempts)
	var wg sync.WaitGroup
	for _, user := range []string{"carol", "carol", "root"} {
		p := s.img.people[user]
		wg.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				r := login.Go{}.Login(ctx, at, login.Try{User: user, Key: p.key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{p.password}})
				a.mu.Lock()
				a.all++
				if r.Outcome == login.In {
					a.in, a.last = append(a.in, begin), time.Now()
				}
				a.mu.Unlock()
			}
		})
	}
	a.stop = func() { cancel(); wg.Wait() }
	return a
}

// since counts the successes that began after a time.
func (a *attempts) since(t time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, begin := range a.in {
		if begin.After(t) {
			n++
		}
	}
	return n
}

// repaired waits until the PAM service file asks for the code, and for nothing else, and
// returns when that was.
func (s *server) repaired(good string) time.Time {
	s.t.Helper()
	const first, last = "auth [success=ignore", "authsucc"
	block := good[strings.Index(good, first):strings.LastIndex(good, last)]
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		fi, err := os.Lstat(s.Path(target.PAMService))
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(s.Path(target.PAMService))
		if text := string(b); err == nil && strings.Contains(text, block) && !strings.Contains(text, "@include common-auth") && !strings.Contains(text, "auth sufficient") {
			return time.Now()
		}
	}
	s.t.Fatalf("not repaired after 3 minutes; it is\n%s", s.sh(`{ ls -l /etc/pam.d/sshd; cat /etc/pam.d/sshd; systemctl status --no-pager totp-repair.path totp-repair.service totp-recheck.service
journalctl --no-pager -u 'totp-re*'; } 2>&1 || true`))
	return time.Time{}
}

// Whatever happens to the PAM service file of a server that runs, the path unit
// repairs it, and no login with key and password succeeds that begins after that.
func TestPathUnitRepairsPAM(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		cards := s.cards()
		at := s.ssh(cards["alice"])
		good := s.read(target.PAMService)
		s.cycles()

		// Without it, these logins succeed: they can be seen.
		s.sh("systemctl stop totp-repair.path totp-recheck.service; : >/etc/pam.d/sshd")
		a := s.tryPassword(at)
		for end := time.Now().Add(3 * time.Minute); a.since(time.Time{}) == 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		a.stop()
		if a.since(time.Time{}) == 0 {
			t.Fatal("key and password are refused also with an empty file")
		}
		if out, errs, code := s.agent("status"); code != 1 || !strings.Contains(out, "pam-block") || !strings.Contains(errs, "check --repair") {
			t.Errorf("status: exit %d\n%s%s", code, out, errs)
		}
		if out, errs, code := s.agent("check", "--repair"); code != 0 || s.read(target.PAMService) != good {
			t.Fatalf("check --repair: exit %d\n%s%s", code, out, errs)
		}
		s.sh("systemctl start totp-repair.path")

		for name, script := range map[string]string{
			"deleted":       "rm /etc/pam.d/sshd",
			"emptied":       ": >/etc/pam.d/sshd",
			"replaced":      "printf '@include common-auth\\n@include common-account\\n@include common-session\\n' >/etc/pam.d/.x; mv /etc/pam.d/.x /etc/pam.d/sshd",
			"edited":        "sed -i '1i auth sufficient pam_unix.so' /etc/pam.d/sshd",
			"a directory":   "until rm -f /etc/pam.d/sshd && mkdir /etc/pam.d/sshd; do :; done", /* the repair is fast */
			"several times": "for n in 1 2 3 4 5; do : >/etc/pam.d/sshd; sleep 0.2; rm -f /etc/pam.d/sshd; sleep 0.1; done; : >/etc/pam.d/sshd",
		} {
			t.Log(name)
			a := s.tryPassword(at)
			before := time.Now()
			s.sh(script)
			done := time.Now()
			right := s.repaired(good)
			time.Sleep(2 * time.Second)
			a.stop()
			last := time.Duration(0)
			if len(a.in) > 0 {
				last = a.in[len(a.in)-1].Sub(before)
			}
			t.Logf("%s: done after %v, right again after %v; %d attempts, %d in, the last of them begun after %v", name, done.Sub(before), right.Sub(before), a.all, len(a.in), last)
			if n := a.since(right); n > 0 || name == "deleted" && len(a.in) > 0 {
				t.Errorf("%s: %d logins with key and password after the repair", name, n)
			}
		}
		s.must("systemctl", "start", "totp-repair.service") // until all is settled
		s.sh("! systemctl is-failed totp-repair.path totp-repair.service")
		s.enter(cards["alice"], login.In)
	})
}

// An update that takes the package's own files, as --force-confnew does.
func TestPathUnitRepairsAnUpdate(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := newServer(t, r)
		if out, err := s.Disk().Command(t.Context(), "sh", "-euc", "apt-get -qq update; apt-get -q -y --download-only --reinstall install openssh-server").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		s.start()
		cards := s.cards()
		at := s.ssh(cards["alice"])
		good := s.read(target.PAMService)
		// The hook would come at the end.
		s.sh("rm /etc/dpkg/dpkg.cfg.d/totp-agent")
		a := s.tryPassword(at)
		before := time.Now()
		s.sh(`export DEBIAN_FRONTEND=noninteractive
apt-get -q -y --no-download -o Dpkg::Options::=--force-confask -o Dpkg::Options::=--force-confnew --reinstall install openssh-server >&2`)
		done := time.Now()
		right := s.repaired(good)
		time.Sleep(2 * time.Second)
		a.stop()
		journal := s.sh("journalctl --boot --no-pager --output=short-precise --unit=totp-repair.service")
		t.Logf("apt took %v, right again after %v; %d attempts, %d in; last %v\n%s", done.Sub(before), right.Sub(before), a.all, len(a.in), a.last.Sub(before), journal)
		if n := a.since(right); n > 0 || !strings.Contains(journal, "/etc/pam.d/sshd: repaired") {
			t.Errorf("%d logins with key and password after the repair", n)
		}
		s.must("systemctl", "start", "totp-repair.service")
		s.enter(cards["alice"], login.In)
	})
}

// What cannot be repaired closes SSH at once, says so, and opens it again.
func TestUnrepairableClosesSSH(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		cards := s.cards()
		at := s.ssh(cards["alice"])
		good := s.read(target.PAMService)
		pid := s.must("systemctl", "show", "--property=MainPID", "--value", "ssh.service")

		// The mount is read-only for every process.
		s.sh(`systemctl stop totp-repair.path totp-recheck.service
mount --bind /etc/pam.d /etc/pam.d
: >/etc/pam.d/sshd
mount -o remount,bind,ro /etc/pam.d
systemctl start totp-repair.path
systemctl --no-block start totp-repair.service`)
		if err := s.WaitConsole(t.Context(), "SSH is closed"); err != nil {
			t.Fatal(err)
		}
		carol := login.Try{User: "carol", Key: s.img.people["carol"].key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{s.img.people["carol"].password}}
		for r := (login.Result{Outcome: login.In}); r.Outcome == login.In; { // sshd reads its files again after the signal
			r = login.Go{}.Login(t.Context(), at, carol)
		}
		a := s.tryPassword(at)
		time.Sleep(3 * time.Second)
		a.stop()
		if n := len(a.in); n > 0 || a.all == 0 {
			t.Errorf("%d of %d logins with key and password, although SSH is closed", n, a.all)
		}
		s.enter(cards["alice"], login.Unasked)
		if now := s.must("systemctl", "show", "--property=MainPID", "--value", "ssh.service"); now != pid {
			t.Errorf("sshd was started again: PID %s, then %s", pid, now)
		}
		for verb, want := range map[string]int{"status": 1, "check": 3} {
			if out, errs, code := s.agent(verb); code != want || !strings.Contains(out, "SSH is closed") {
				t.Errorf("%s: exit %d\n%s%s", verb, code, out, errs)
			}
		}
		if conf := s.sh("cat " + target.ClosedConf + " " + target.ClosedBanner); !strings.Contains(conf, "DenyUsers *") || !strings.Contains(conf, "check --repair") {
			t.Errorf("%s", conf)
		}
		s.sh("umount /etc/pam.d; systemctl start totp-repair.service")
		if s.read(target.PAMService) != good {
			t.Error("not repaired")
		}
		if out, errs, code := s.agent("check"); strings.Contains(out, "pam-") || strings.Contains(out, "ssh-closed") || strings.Contains(out, "file-") {
			t.Errorf("check: exit %d\n%s%s", code, out, errs)
		}
		s.enter(cards["alice"], login.In)
	})
}

// SSH that was closed stays closed at a boot. What opens the login there is a unit of
// the administrator's, which no repair takes away.
func TestClosedSSHStaysClosed(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		cards := s.cards()
		at := s.ssh(cards["alice"])
		s.sh(`mkdir -p /etc/systemd/system/ssh.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o AuthenticationMethods=publickey -f /root/sshd_config\n' >/etc/systemd/system/ssh.service.d/zz.conf
printf 'UsePAM yes\nAuthenticationMethods publickey\n' >/root/sshd_config
systemctl daemon-reload`)
		if err := s.WaitConsole(t.Context(), "SSH is closed"); err != nil {
			t.Fatal(err)
		}
		s.reboot()
		for start := time.Now(); time.Since(start) < 8*time.Second; time.Sleep(200 * time.Millisecond) {
			if r := (login.Go{}).Login(t.Context(), at, login.Try{User: "alice", Key: s.img.people["alice"].key, Methods: []string{login.PublicKey}}); r.Outcome == login.In {
				t.Fatalf("after the boot, key alone: %v\n%s", r, s.sh("systemctl status --no-pager ssh.service totp-agent.service totp-recheck.service || true; ls -l /run/totp-agent /var/lib/totp-agent; journalctl --no-pager -b -u ssh -u totp-agent -u totp-recheck || true"))
			}
		}
		if out, errs, code := s.agent("status"); code != 1 || !strings.Contains(out, "SSH is closed") {
			t.Errorf("status: exit %d\n%s%s", code, out, errs)
		}
		s.sh("rm /etc/systemd/system/ssh.service.d/zz.conf; systemctl daemon-reload; systemctl start totp-repair.service")
		s.enter(cards["alice"], login.In)
	})
}

// A file that was damaged while the server was down is right before sshd starts.
func TestTheBootRepairsPAM(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		cards := s.cards()
		s.powerOff()
		good := s.read(target.PAMService)
		s.write(target.PAMService, "", 0o644)
		s.write("/usr/lib/pam.d/sshd", "", 0o644)
		if err := os.Remove(s.Path(target.SSHDDropIn)); err != nil {
			t.Fatal(err)
		}
		const open = "UsePAM yes\nMatch all\n\tAuthenticationMethods publickey\n"
		s.write(target.SSHDLogin, open, 0o600)
		s.start()
		if got := s.result("totp-agent.service"); got != "success" {
			t.Errorf("totp-agent.service: %s", got)
		}
		if out, errs, code := s.agent("check"); strings.Contains(out, "pam-") || strings.Contains(out, "ssh-closed") || strings.Contains(out, "file-") {
			t.Errorf("check: exit %d\n%s%s", code, out, errs)
		}
		if now := s.read(target.PAMService); !strings.Contains(now, good[strings.Index(good, "auth "):strings.LastIndex(good, "authsucc")]) {
			t.Errorf("it is\n%s", now)
		}
		s.short(s.ssh(cards["alice"]), cards["alice"])
		if r := (login.Go{}).Login(t.Context(), s.ssh(cards["alice"]), login.Try{User: "alice", Key: s.img.people["alice"].key, Methods: []string{login.PublicKey}}); r.Outcome == login.In {
			t.Errorf("key alone: %v", r)
		}
		if r := (login.Go{}).Login(t.Context(), s.ssh(cards["alice"]), login.Try{User: "carol", Key: s.img.people["carol"].key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{s.img.people["carol"].password}}); r.Outcome == login.In {
			t.Errorf("key and password: %v", r)
		}
	})
}
