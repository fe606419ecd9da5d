// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/faillock"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// tallies is the directory of the PAM block's counters, one file per user.
const tallies = target.PAMTallyDir

// A besieged server is an instance whose sshd runs in a network of its own. There,
// clients of the test have many addresses.
type besieged struct {
	*machine
	sshd   *rootfs.SSHD
	card   card.Card // alice's
	bob    card.Card
	signer ssh.Signer
	state  []byte // alice's PAM state as enrollment left it
}

// network is what every address of a test is in.
var network = []netip.Prefix{
	netip.MustParsePrefix("2001:db8:0:1::/64"), netip.MustParsePrefix("2001:db8:0:2::/64"), netip.MustParsePrefix("2001:db8:0:3::/64"),
}

// inTarget enrolls alice on an instance of a release, starts sshd with options,
// and calls do in the network of that sshd.
func inTarget(t *testing.T, r rootfs.Recipe, options func(*machine) []string, do func(*besieged)) {
	t.Helper()
	m := newMachineOf(t, r)
	m.must("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/totp-agent.conf") // as at boot
	cards := m.firstBoot()
	b := &besieged{machine: m, card: cards["alice"], bob: cards["bob"]}
	var err error
	if b.state, err = os.ReadFile(m.Path(pamStates + "/alice")); err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(m.img.people["alice"].key.File)
	if err != nil {
		t.Fatal(err)
	}
	if b.signer, err = ssh.ParsePrivateKey(private); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-o", "ListenAddress=::"}, options(m)...)
	inNetwork(t, func() {
		if b.sshd, err = m.StartSSHD(t.Context(), args...); err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if t.Failed() {
				t.Logf("sshd:\n%s", b.sshd.Log())
			}
			_ = b.sshd.Stop()
		}()
		do(b)
	})
}

// asBaked leaves the settings of the bake alone.
func asBaked(*machine) []string { return nil }

// unlimited leaves all to PAM: as many connections as there are, from wherever
// they come. Of MaxStartups most versions of sshd take the last value that they
// read, not the first.
func unlimited(m *machine) []string {
	m.must("sh", "-c", "echo MaxStartups 200 >/etc/ssh/sshd_config.d/99-lab.conf")
	args := append(m.patient(), "-o", "MaxStartups=200")
	if strings.Contains(m.must("/usr/sbin/sshd", "-T"), "\npersourcemaxstartups ") {
		args = append(args, "-o", "PerSourceMaxStartups=none")
	}
	return args
}

// inNetwork runs do in a new network namespace. The sockets and programs that do
// starts on its own goroutine are in that namespace.
func inNetwork(t *testing.T, do func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked. It ends with the goroutine, and the namespace
		// with the last process in it.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = ip("link", "set", "lo", "up")
		}
		if err == nil {
			err = os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0o644)
		}
		for _, prefix := range network {
			if err == nil { // all addresses of the prefix at once
				err = ip("-6", "route", "add", "local", prefix.String(), "dev", "lo")
			}
		}
		defer func() { done <- err }()
		if err == nil {
			do()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// sources are n addresses: of 127.0.0.0/8, or of three IPv6 networks in turn.
func sources(six bool, n int) []netip.Addr {
	var as []netip.Addr
	for i := range n {
		if !six {
			as = append(as, netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i)}))
			continue
		}
		a := network[i%len(network)].Addr().As16()
		a[15] = byte(10 + i)
		as = append(as, netip.AddrFrom16(a))
	}
	return as
}

// addr is the address of sshd for a source.
func (b *besieged) addr(from netip.Addr) string {
	if from.Is4() {
		return b.sshd.Addr()
	}
	return net.JoinHostPort(network[0].Addr().Next().String(), fmt.Sprint(b.sshd.Port))
}

// dial must be called in the server's network.
func (b *besieged) dial(ctx context.Context, from netip.Addr) (net.Conn, error) {
	d := net.Dialer{Timeout: time.Minute, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return d.DialContext(ctx, "tcp", b.addr(from))
}

// renew puts back alice's state as of her enrollment, and empties her counter.
func (b *besieged) renew() {
	b.t.Helper()
	if err := replace(b.Path(pamStates+"/alice"), b.state); err != nil {
		b.t.Error(err)
	}
	if err := os.Truncate(b.Path(tallies+"/alice"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Error(err)
	}
}

// code is alice's current code.
func (b *besieged) code() string {
	code, err := otp.Code(b.card.Secret, time.Now())
	if err != nil {
		b.t.Error(err)
	}
	return code
}

// A volley is what became of sessions that all waited at the prompt, and then
// answered at the same time.
type volley struct {
	prompts int            // sessions that were asked for a code
	in      int            // sessions that were accepted
	told    map[string]int // texts that came without a prompt
	took    time.Duration
}

// fire opens a session of alice for each answer and source. It must be called in
// the server's network.
func (b *besieged) fire(ctx context.Context, from []netip.Addr, answers []string) (volley, error) {
	start := time.Now()
	var (
		h       = volley{told: map[string]int{}}
		mu      sync.Mutex
		wg      sync.WaitGroup
		arrived sync.WaitGroup
		release = make(chan struct{})
	)
	for i, answer := range answers {
		conn, err := b.dial(ctx, from[i])
		if err != nil {
			return h, err
		}
		arrived.Add(1)
		wg.Go(func() {
			defer conn.Close()
			there := sync.OnceFunc(arrived.Done)
			defer there()
			asked := false
			config := &ssh.ClientConfig{User: "alice", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Auth: []ssh.AuthMethod{
				ssh.PublicKeys(b.signer),
				ssh.KeyboardInteractive(func(_, instruction string, questions []string, _ []bool) ([]string, error) {
					if len(questions) == 0 {
						mu.Lock()
						h.told[instruction]++
						mu.Unlock()
						return nil, nil
					}
					if asked {
						return nil, errors.New("asked again")
					}
					asked = true
					there()
					<-release
					return []string{answer}, nil
				}),
			}}
			c, chans, reqs, err := ssh.NewClientConn(conn, b.addr(from[i]), config)
			mu.Lock()
			defer mu.Unlock()
			if asked {
				h.prompts++
			}
			if err != nil {
				return
			}
			h.in++
			go ssh.DiscardRequests(reqs)
			go func() {
				for c := range chans {
					_ = c.Reject(ssh.Prohibited, "")
				}
			}()
			_ = c.Close()
		})
	}
	arrived.Wait()
	close(release)
	wg.Wait()
	h.took = time.Since(start)
	return h, nil
}

// allowed is how many prompts the standard limit gives in a time: three, and three
// more after each lock of thirty seconds. It is what makes the tests independent of
// the speed of the machine.
func allowed(in time.Duration) int { return 3 * (1 + int(in/(30*time.Second))) }

// Sessions that are released together get no more guesses than sessions one after
// another, and a single-use code is accepted no more often than there are prompts.
func TestParallelGuesses(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			inTarget(t, r, unlimited, func(b *besieged) {
				for _, n := range []int{4, 20, 40} {
					for _, six := range []bool{false, true} {
						from := sources(six, n)
						// A login of the owner comes first, as on a server in use.
						b.renew()
						if v, err := b.fire(t.Context(), from[:1], []string{b.code()}); err != nil || v.in != 1 {
							t.Errorf("the owner's login: %+v, %v", v, err)
							return
						}
						for _, replay := range []bool{false, true} {
							b.renew()
							right := rand.Intn(n)
							var answers []string
							for i := range n {
								if i == right || replay {
									answers = append(answers, b.code())
								} else {
									wrong, err := login.NewCodes(b.card.Secret, nil).Wrong()
									if err != nil {
										t.Error(err)
										return
									}
									answers = append(answers, wrong)
								}
							}
							v, err := b.fire(t.Context(), from, answers)
							if err != nil {
								t.Error(err)
								return
							}
							t.Logf("%d sessions, IPv6 %v, replay %v: %d asked, %d accepted, %v", n, six, replay, v.prompts, v.in, v.took.Round(time.Millisecond))
							if most := allowed(v.took); v.prompts > most {
								t.Errorf("%d sessions, IPv6 %v, replay %v: %d were asked for a code, want at most %d", n, six, replay, v.prompts, most)
							}
							if !replay && v.in > 1 {
								t.Errorf("%d sessions, IPv6 %v: one right code, %d accepted", n, six, v.in)
							}
						}
					}
				}
			})
		})
	}
}

// A user can neither fill the file system of the counters nor hold the lock of one, of
// which pam_faillock makes that user the owner.
func TestCountersOutOfReach(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			inTarget(t, r, unlimited, func(b *besieged) {
				if v, err := b.fire(t.Context(), sources(false, 1), []string{b.code()}); err != nil || v.in != 1 {
					t.Errorf("the owner's login: %+v, %v", v, err)
					return
				}
				if out := b.must("stat", "--format=%U", tallies+"/alice"); out != "alice\n" {
					t.Errorf("the counter belongs to %q", out)
				}
				for _, script := range []string{"echo x >>" + tallies + "/alice", "flock --nonblock " + tallies + "/alice true", "ls " + tallies, ": >" + tallies + "/bob"} {
					if s := run(t, b.Command(t.Context(), "setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "sh", "-c", script)); s.code == 0 {
						t.Errorf("alice can: %s", script)
					}
				}
			})
		})
	}
}

// During a lock the client with the key is told so. Tries that are refused do not
// prolong the lock: thirty seconds after the last prompt the owner is accepted.
func TestLockEnds(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			inTarget(t, r, unlimited, func(b *besieged) {
				from := sources(false, 20)
				wrong, err := login.NewCodes(b.card.Secret, nil).Wrong()
				if err != nil {
					t.Error(err)
					return
				}
				tries := make([]string, len(from))
				for i := range tries {
					tries[i] = wrong
				}
				var v volley
				for range 2 { // the second is refused as a whole
					if v, err = b.fire(t.Context(), from, tries); err != nil {
						t.Error(err)
						return
					}
				}
				told := 0
				for text, n := range v.told {
					if strings.Contains(text, "locked") {
						told += n
					}
				}
				if want := len(from) - v.prompts; told != want {
					t.Errorf("%d of %d refused sessions were told of the lock: %v", told, want, v.told)
				}
				// The count is the account's: another user is not affected.
				bob := b.account("bob", map[string]card.Card{"bob": b.bob})
				keys, err := b.HostKeys()
				if err != nil {
					t.Error(err)
				}
				server := login.Server{Host: b.sshd.Host, Port: b.sshd.Port, HostKeys: keys}
				if got, err := login.Enter(t.Context(), login.Go{}, server, bob); err != nil || got.Outcome != login.In {
					t.Errorf("bob during alice's lock: %v, %v", got, err)
				}
				records, err := faillock.Parse(b.counter())
				last := time.Time{}
				for _, r := range records {
					if last = r.Time; !slices.Contains(from, r.Source) {
						t.Errorf("a counted try from %v", r.Source)
					}
				}
				limit := faillock.Limit{Tries: otp.Standard.Attempts, Period: time.Duration(otp.Standard.Seconds) * time.Second}
				if err != nil || len(records) < limit.Tries || faillock.LockedUntil(records, limit, last).IsZero() {
					t.Errorf("the counter: %v, %v", records, err)
				}
				// Instead of waiting: what was counted happened 31 seconds earlier.
				b.age(31 * time.Second)
				if v, err := b.fire(t.Context(), from[:1], []string{b.code()}); err != nil || v.in != 1 {
					t.Errorf("the owner's login after the lock: %+v, %v", v, err)
				}
			})
		})
	}
}

// age moves all that is counted of alice into the past. A record of a counter is
// 64 bytes, with the time in the last 8.
func (b *besieged) age(by time.Duration) {
	b.t.Helper()
	name := b.Path(tallies + "/alice")
	counter := b.counter()
	for r := counter; len(r) > 0; r = r[64:] {
		at := binary.NativeEndian.Uint64(r[56:])
		binary.NativeEndian.PutUint64(r[56:], at-uint64(by/time.Second))
	}
	err := os.WriteFile(name, counter, 0o600)
	name = b.Path(pamStates + "/alice")
	data, readErr := os.ReadFile(name)
	s, parseErr := otp.ParseState(data)
	for i := range s.Tries {
		s.Tries[i] -= int64(by / time.Second)
	}
	data, formatErr := s.Format()
	if err := errors.Join(err, readErr, parseErr, formatErr, replace(name, data)); err != nil {
		b.t.Error(err)
	}
}

// counter is alice's, as the module has written it.
func (b *besieged) counter() []byte {
	b.t.Helper()
	data, err := os.ReadFile(b.Path(tallies + "/alice"))
	if err != nil {
		b.t.Error(err)
	}
	return data
}

// replace writes a state file as the PAM module does.
func replace(name string, data []byte) error {
	return errors.Join(os.WriteFile(name+".new", data, 0o400), os.Rename(name+".new", name))
}

// One source that holds all the connections it can keeps no other out: an IPv4
// address, or all addresses of an IPv6 /64. OpenSSH 8.4 of Debian 11 cannot count
// per source.
func TestOneSourceCannotShutOut(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians[1:] {
		// Each has an sshd of its own: one does not forget at once that connections are closed.
		for _, six := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %v", r.Suite, six), func(t *testing.T) {
				t.Parallel()
				inTarget(t, r, asBaked, func(b *besieged) {
					ctx := t.Context()
					stranger, owner := make([]netip.Addr, 75), netip.MustParseAddr("127.0.0.7")
					for i := range stranger {
						stranger[i] = netip.MustParseAddr("127.0.0.66")
					}
					if six {
						owner = network[1].Addr().Next()
						a := network[2].Addr().As16()
						for i := range stranger {
							a[15] = byte(1 + i)
							stranger[i] = netip.AddrFrom16(a)
						}
					}
					var held []net.Conn
					for _, from := range stranger {
						conn, err := b.dial(ctx, from)
						if err != nil {
							t.Error(err)
							return
						}
						held = append(held, conn)
					}
					// Each of these costs the owner a second of PerSourcePenalties, which has
					// effect from fifteen on.
					for i := range 8 {
						conn, err := b.dial(ctx, owner)
						if err != nil {
							t.Error(err)
							return
						}
						if !port.GreetedBy(conn, time.Minute) {
							t.Errorf("IPv6 %v: connection %d of the owner was dropped", six, i)
						}
						_ = conn.Close()
					}
					b.renew()
					if v, err := b.fire(ctx, []netip.Addr{owner}, []string{b.code()}); err != nil || v.in != 1 {
						t.Errorf("IPv6 %v: the owner's login: %+v, %v", six, v, err)
					}
					for _, conn := range held {
						_ = conn.Close()
					}
				})
			})
		}
	}
}
