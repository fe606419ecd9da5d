// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package verify tries from outside whether a live SSH server demands a key and
// a one-time code, with what its caller has at hand, and says what it saw.
//
// # Promises
//
// A run is gentle. It makes at most three connections, four with a wrong code,
// of which at most two in half a minute end without a login: OpenSSH's
// PerSourcePenalties (5 s for each, enforced above 15 s, sshd_config(5)) do not
// lock the caller out. At most two attempts in 30 seconds, and three in all, are
// of the kind that pam_google_authenticator counts, below its limits of 3 in 30
// and 5 in 300 seconds. A method by which the account could be locked, such as a
// password on a server that takes passwords, is reported and not tried.
//
// A key and a code go only to a server whose host key is known, over algorithms
// that are not weak; a code only in answer to the stock prompt. Nothing is run
// on the server. What the server sends is quoted wherever it is shown.
//
// # Limits
//
// A row is what one account sees from one address: exemptions by user, group or
// address (sshd's Match) look different to others. Host certificates
// (@cert-authority) are not used, and ssh_config is not read. The clock of this
// machine must be right to half a minute where a card's secret makes the code.
package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

var (
	// ErrUnreachable means that the server gave no answer to what was asked, or
	// stopped to answer: nothing is known of what it would have done.
	ErrUnreachable = errors.New("no answer")

	// ErrNotSSH means that what answers is no SSH server.
	ErrNotSSH = errors.New("is no SSH server")

	// ErrAlgorithms means that there is no encrypted connection between the
	// server and this program, or only a weak one where a key would be sent.
	ErrAlgorithms = errors.New("has no algorithm in common with totpctl")
)

// DefaultTimeout is how long one attempt may take, from the connection to the
// answer.
const DefaultTimeout = 20 * time.Second

// Options say whom to try, and with what.
type Options struct {
	Target  Target
	Timeout time.Duration // of one attempt; 0 is DefaultTimeout

	// What the host key is compared with: the entries of a card ("type
	// SHA256:FINGERPRINT ..."), or, where there are none, known_hosts.
	HostKeys   []string
	KnownHosts *KnownHosts // may be nil

	// Keys returns the caller's login keys, best first. It is called once, when
	// the host key is known to be right; nil: the caller has none.
	Keys func(context.Context) ([]ssh.Signer, error)

	// Code returns a code that is valid now. It is called once, after Keys; nil:
	// the caller has none. Wrong returns six digits that are no code now; nil: no
	// wrong code is tried.
	Code, Wrong func(context.Context) (string, error)

	// Why says why there is no key, code or wrong code, for the rows that are not
	// tried.
	WhyNoKey, WhyNoCode, WhyNoWrong string

	// Say is told what takes long; nil: nobody is.
	Say func(text string)
}

// run is the state of one Run.
type run struct {
	Options
	trust  trust
	addr   string // of the first connection; the others go to the same
	report Report
	pace   pace
	open   bool // somebody was let in who has nothing
}

// Run makes the table. Rows that cannot be tried say why.
//
// Errors are ErrUnreachable, ErrNotSSH and ErrAlgorithms, with a report of what was seen until
// then, the context's, and those of Keys, Code and Wrong. That a
// row is wrong is no error: see Report.Result.
func Run(ctx context.Context, o Options) (Report, error) { return runWith(ctx, o, func(*pace) {}) }

func runWith(ctx context.Context, o Options, change func(*pace)) (Report, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	r := &run{Options: o, addr: o.Target.Addr(), pace: newPace()}
	change(&r.pace)
	r.report = newReport(o.Target)
	r.trust = trust{card: o.HostKeys}
	if len(o.HostKeys) == 0 {
		r.trust.known = o.KnownHosts
	}
	err := r.all(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	r.report.CodeAttempts = r.pace.total
	r.report.finish(err)
	return r.report, err
}

func (r *run) all(ctx context.Context) error {
	if err := r.refusals(ctx); err != nil {
		r.skip("the server did not answer")
		return err
	}
	if r.open {
		r.skip("the server is open")
		return nil
	}
	return r.logins(ctx)
}

// connect makes one connection. The error is nil when the server let it in,
// ErrUnreachable where nobody answered in time, and otherwise what x/crypto/ssh or
// a callback ended the dialogue with.
func (r *run) connect(ctx context.Context, cfg *ssh.ClientConfig, rec *recorder) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return r.unreachable(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	r.addr = conn.RemoteAddr().String()
	r.report.Address = r.addr
	rec.Conn = conn
	c, chans, reqs, err := ssh.NewClientConn(rec, r.Target.Addr(), cfg)
	if err == nil {
		// Somebody must read what the server sends until the end.
		go ssh.DiscardRequests(reqs)
		go func() {
			for ch := range chans {
				_ = ch.Reject(ssh.Prohibited, "no channels")
			}
		}()
		return c.Close()
	}
	if ctx.Err() != nil {
		return r.unreachable(ctx, err)
	}
	return err
}

// unreachable says why there was no answer, in a few words.
func (r *run) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("host %q: %w within %v", r.Target.Addr(), ErrUnreachable, r.Timeout)
	}
	return fmt.Errorf("host %q: %w: %s", r.Target.Addr(), ErrUnreachable, words(err))
}

// words are what an error says to people: without the operation and the
// addresses, which stand before it.
func words(err error) string {
	if op := new(net.OpError); errors.As(err, &op) {
		err = op.Err
	}
	text := strings.TrimPrefix(err.Error(), "ssh: handshake failed: ")
	// Parts of it may come from the server.
	return strings.Trim(fmt.Sprintf("%+q", text), `"`)
}

// errEnough ends a connection that has told all it was made for.
var errEnough = errors.New("enough seen")

// hungUp tells whether a server ended the dialogue by itself: it hung up.
// x/crypto/ssh has no error value for a disconnect message.
func hungUp(err error) bool {
	text := err.Error()
	return strings.Contains(text, "ssh: disconnect") || strings.HasSuffix(text, "EOF") ||
		strings.Contains(text, "connection reset") || strings.Contains(text, "broken pipe") ||
		strings.Contains(text, "forcibly closed") || strings.Contains(text, "was aborted")
}

// hungUpError is for a server that has hung up before it has answered anything.
func (r *run) hungUpError(err error, h hello) error {
	const penalty = "it does so when it has too many connections or failures from here (MaxStartups, PerSourcePenalties): wait some minutes"
	said := parting(err, h)
	switch {
	case said == "":
		said = "the server hung up before it said anything; " + penalty
		if h.version != "" {
			said = "the server hung up at once; " + penalty
		}
	case strings.Contains(said, "Not allowed at this time") || strings.Contains(said, "Exceeded MaxStartups"):
		said = "the server hung up and said " + said + "; " + penalty
	default:
		said = "the server hung up and said " + said
	}
	return fmt.Errorf("host %q: %w: %s", r.Target.Addr(), ErrUnreachable, said)
}

// notSSH is the error for a server that speaks something else.
func (r *run) notSSH(h hello) error {
	err := fmt.Errorf("host %q %w", r.Target.Addr(), ErrNotSSH)
	said := h.before
	if strings.HasPrefix(h.version, "SSH-1.") {
		said = []string{h.version}
	}
	if len(said) > 0 {
		err = fmt.Errorf("%w: it said %+.200q", err, strings.Join(said, " "))
	}
	return err
}

// parting is what a server said before it hung up, quoted; empty if nothing: the text of
// its disconnect message (RFC 4253 section 11.1), or the lines that it sent instead of
// a version.
func parting(err error, h hello) string {
	const mark = "ssh: disconnect, reason "
	if _, text, ok := strings.Cut(err.Error(), mark); ok {
		_, quoted, _ := strings.Cut(text, ": ")
		if quoted, err := strconv.QuotedPrefix(quoted); err == nil {
			if said, err := strconv.Unquote(quoted); err == nil && strings.TrimSpace(said) != "" {
				return fmt.Sprintf("%+.200q", strings.TrimSpace(said))
			}
		}
	}
	if len(h.before) == 0 {
		return ""
	}
	return fmt.Sprintf("%+.200q", strings.Join(h.before, " "))
}

// list writes the methods of a server, quoted where they are no plain names.
func list(methods []string) string {
	if len(methods) == 0 {
		return "nothing"
	}
	names := slices.Clone(methods)
	for i, m := range names {
		if !plainName(m) {
			names[i] = fmt.Sprintf("%+q", m)
		}
	}
	return strings.Join(names, ", ")
}
