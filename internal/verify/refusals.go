// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// clientVersion names this program in the server's log.
const clientVersion = "SSH-2.0-totpctl_verify"

const (
	publicKey           = "publickey"
	password            = "password"
	keyboardInteractive = "keyboard-interactive"
)

// A refusal is one of the attempts that need no secret, all made on the first
// connection: each connection that fails costs its caller a penalty, and a
// connection has room for several attempts (MaxAuthTries).
type refusal struct {
	row, method string
	// A server that takes passwords may lock the account after wrong ones
	// (pam_faillock), and one that asks for a code counts: seeing the method
	// offered is enough.
	unlessOffered bool
}

var refusals = []refusal{
	{rowPassword, password, true},
	{rowCodeAlone, keyboardInteractive, true},
	{rowUnknownKey, publicKey, false},
}

// probe is the dialogue of the first connection.
type probe struct {
	*run
	step    int // of refusals, the one under way; -1 is the method "none"
	greeted bool
	asked   []string // prompts that the server showed without a key
	ended   bool     // the rest of the steps is of no use
}

// refusals tries what must be refused, and looks at the host key and at what the
// server offers on the way.
func (r *run) refusals(ctx context.Context) error {
	p := &probe{run: r, step: -1}
	weak := ssh.InsecureAlgorithms()
	ok := ssh.SupportedAlgorithms()
	cfg := &ssh.ClientConfig{
		// A weak server is looked at as well: nothing secret is said here.
		Config: ssh.Config{
			KeyExchanges: slices.Concat(ok.KeyExchanges, weak.KeyExchanges),
			Ciphers:      slices.Concat(ok.Ciphers, weak.Ciphers),
			MACs:         slices.Concat(ok.MACs, weak.MACs),
		},
		User:              r.Target.User,
		ClientVersion:     clientVersion,
		HostKeyCallback:   r.checkHostKey,
		HostKeyAlgorithms: r.trust.algorithms(r.Target.Addr(), true),
		AuthCallback:      p.next,
	}
	rec := &recorder{}
	err := r.connect(ctx, cfg, rec)
	h, bad := rec.hello()
	r.offered(h, bad)
	return p.conclude(err, h, bad)
}

// next is called after each attempt, and chooses the one that follows.
func (p *probe) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	switch {
	case p.step < 0:
		p.greeted = true
		seen := "out, wants " + list(c.AllowedMethods)
		if slices.Equal(c.AllowedMethods, []string{publicKey}) {
			p.ok(rowNothing, seen)
		} else {
			p.wrong(rowNothing, seen, "a key is to be the only way to begin")
		}
	case len(c.PartialSuccessMethods) > 0:
		p.wrong(refusals[p.step].row, "taken, then wants "+list(c.AllowedMethods), "a key is to be the only way to begin")
		return nil, p.end("the server has taken what came before")
	case len(p.asked) > 0:
		p.wrong(refusals[p.step].row, fmt.Sprintf("asks %s", list(p.asked)), "without a key nothing is to be asked")
		return nil, p.end("the attempt before was left at a prompt")
	default:
		p.ok(refusals[p.step].row, "out")
	}
	for p.step++; p.step < len(refusals); p.step++ {
		s := refusals[p.step]
		if s.unlessOffered && slices.Contains(c.AllowedMethods, s.method) {
			p.wrong(s.row, "offered", "not tried, since the account could be locked by it")
			continue
		}
		return p.method(s.method)
	}
	return nil, p.end("")
}

func (p *probe) end(why string) error {
	p.ended = true
	if why != "" {
		p.skipRefusals(why)
	}
	return errEnough
}

func (p *probe) skipRefusals(why string) {
	for _, s := range refusals {
		p.skip(why, s.row)
	}
}

func (p *probe) method(name string) (ssh.AuthMethod, error) {
	switch name {
	case password:
		return ssh.Password("no password " + rand.Text()), nil
	case keyboardInteractive:
		silent := 0
		return ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			if silent++; len(questions) == 0 && silent < maxSilent {
				return nil, nil
			}
			p.asked = append(questions, "nothing, without end")[:max(1, len(questions))]
			return nil, errEnough
		}), nil
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, err
	}
	return ssh.PublicKeys(signer), nil
}

// maxSilent bounds the rounds in which a server asks nothing (RFC 4256 section
// 3.2 allows them).
const maxSilent = 8

// conclude makes of the connection's end what it says about the attempt under
// way.
func (p *probe) conclude(err error, h hello, bad error) error {
	negotiation := new(ssh.AlgorithmNegotiationError)
	switch {
	case err == nil && p.step < 0:
		p.wrong(rowNothing, "in", "the server lets in whoever comes")
		p.open = true
	case err == nil:
		p.wrong(refusals[p.step].row, "in", "without anything that is this account's")
		p.open = true
	case errors.Is(err, errEnough):
	case errors.Is(err, errOtherHostKey):
		p.skip("the host key is wrong")
	case errors.As(err, &negotiation):
		if negotiation.What == "host key" && len(p.trust.types(p.Target.Addr())) > 0 {
			p.wrong(rowHostKey, "has keys for "+list(negotiation.RequestedAlgorithms),
				"known is "+list(p.trust.types(p.Target.Addr()))+"; it is another server, or one that was made anew")
			p.skip("the host key is wrong")
			return nil
		}
		return fmt.Errorf("host %q %w: as %s it has %s", p.Target.Addr(), ErrAlgorithms,
			negotiation.What, list(negotiation.RequestedAlgorithms))
	case errors.Is(err, ErrUnreachable):
		if p.greeted && !p.ended && p.step < len(refusals) {
			p.skip("no answer", refusals[p.step].row)
		}
		return err
	case errors.Is(bad, errHello):
		return p.notSSH(h)
	case hungUp(err) && p.greeted:
		// That is a refusal as well: of this and of whatever would follow.
		seen := "out, the server hung up"
		if said := parting(err, h); said != "" {
			seen += " and said " + said
		}
		p.ok(refusals[p.step].row, seen)
		p.skipRefusals("the server takes no more attempts on a connection")
	case hungUp(err):
		return p.hungUpError(err, h)
	default:
		return p.unreachable(context.Background(), err)
	}
	return nil
}

// offered makes the rows about what the server offers.
func (r *run) offered(h hello, err error) {
	if h.version != "" {
		r.report.Server = fmt.Sprintf("%+q", h.version)
		r.report.Server = r.report.Server[1 : len(r.report.Server)-1]
	}
	if err != nil {
		return
	}
	a := &Algorithms{
		Kex:      classify(h.kex),
		HostKeys: classify(h.hostKeys),
		Ciphers:  classify(h.clientCiphers, h.ciphers),
		MACs:     classify(h.clientMACs, h.macs),
	}
	r.report.Algorithms = a
	for _, row := range []struct {
		id  string
		all []Algorithm
	}{{rowKex, a.Kex}, {rowHostKeyAlgs, a.HostKeys}, {rowCiphers, a.Ciphers}, {rowMACs, a.MACs}} {
		text, weak := summary(row.all)
		if weak {
			r.wrong(row.id, text, "")
		} else {
			r.ok(row.id, text)
		}
	}
	strict, open := terrapin(h)
	a.StrictKex = strict
	switch {
	case strict:
		r.ok(rowStrictKex, "strict key exchange")
	case len(open) == 0:
		r.ok(rowStrictKex, "no cipher is open to it")
	default:
		r.wrong(rowStrictKex, "no strict key exchange, with "+list(open), "CVE-2023-48795")
	}
}
