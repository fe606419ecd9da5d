// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

var (
	keyRows  = []string{rowKeyAlone, rowPrompt}
	codeRows = []string{rowKeyCode, rowSameCode}
)

// logins tries what needs a key, and a code if there is one: on one connection
// the key alone, the prompt and the code; the same code again on a second one.
func (r *run) logins(ctx context.Context) error {
	all := slices.Concat(keyRows, codeRows, []string{rowWrongCode})
	if !r.verified() {
		r.skip("the host key is not verified, and neither key nor code goes to an unknown server", all...)
		return nil
	}
	if r.Keys == nil {
		r.skip(r.WhyNoKey, all...)
		return nil
	}
	keys, err := r.Keys(ctx)
	if err != nil {
		return err
	}
	var code string
	if r.Code == nil {
		r.skip(r.WhyNoCode, codeRows...)
	} else if code, err = r.Code(ctx); err != nil {
		return err
	}
	d, err := r.login(ctx, keys, code)
	if err != nil {
		if d.sent == sentRequest || d.sent == sentCode {
			r.keyRow(d)
		}
		r.skip("no answer", all...)
		return err
	}
	r.keyRow(d)
	in := r.codeRow(d, code)
	if !in {
		r.skip("the code did not open the account", rowSameCode)
	} else if err := r.again(ctx, keys, code); err != nil {
		return err
	}
	return r.wrongCode(ctx, keys, d)
}

// dialogue is how far one login came.
type dialogue struct {
	in         bool
	sent       string   // the last that was: nothing, a key, a request for the prompt, the code
	first      []string // methods that the server wanted before anything was sent
	keyTaken   bool
	then       []string // methods that it wanted after the key
	prompts    []string
	said       string // by the server, with the prompt
	parting    string // by the server as it hung up, for people
	unexpected bool   // a prompt that is no place for a code
}

const (
	sentNothing = ""
	sentKey     = "key"
	sentRequest = "request"
	sentCode    = "code"
)

// login offers the keys, and, where the server then asks for it, the code; an
// empty one is not sent, and the connection ends at the prompt.
func (r *run) login(ctx context.Context, keys []ssh.Signer, code string) (dialogue, error) {
	var d dialogue
	silent := 0
	answer := func(_, instruction string, questions []string, _ []bool) ([]string, error) {
		if instruction != "" {
			d.said = instruction
		}
		if len(questions) == 0 {
			if silent++; silent > maxSilent {
				return nil, errEnough
			}
			return nil, nil
		}
		d.prompts = append(d.prompts, questions...)
		d.unexpected = len(d.prompts) != 1 || d.prompts[0] != stockPrompt
		if d.unexpected || code == "" {
			return nil, errEnough
		}
		d.sent = sentCode
		return []string{code}, nil
	}
	offered := ssh.SupportedAlgorithms()
	cfg := &ssh.ClientConfig{
		Config: ssh.Config{
			KeyExchanges: strong(offered.KeyExchanges),
			Ciphers:      strong(offered.Ciphers),
			MACs:         strong(offered.MACs),
		},
		User:              r.Target.User,
		ClientVersion:     clientVersion,
		HostKeyCallback:   r.checkHostKey,
		HostKeyAlgorithms: r.trust.algorithms(r.Target.Addr(), false),
		AuthCallback: func(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			switch d.sent {
			case sentNothing:
				d.first, d.sent = c.AllowedMethods, sentKey
				return ssh.PublicKeys(keys...), nil
			case sentKey:
				d.keyTaken, d.then = slices.Contains(c.PartialSuccessMethods, publicKey), c.AllowedMethods
				if !d.keyTaken || !slices.Contains(d.then, keyboardInteractive) {
					return nil, errEnough
				}
				d.sent = sentRequest
				r.pace.attempt()
				return ssh.KeyboardInteractive(answer), nil
			}
			return nil, errEnough
		},
	}
	rec := &recorder{}
	err := r.connect(ctx, cfg, rec)
	negotiation := new(ssh.AlgorithmNegotiationError)
	switch {
	case err == nil:
		d.in = true
	case errors.Is(err, errEnough):
	case errors.Is(err, errOtherHostKey):
		return d, fmt.Errorf("host %q: %w: it shows another host key than a moment ago", r.Target.Addr(), ErrUnreachable)
	case errors.As(err, &negotiation):
		return d, fmt.Errorf("host %q %w that is not weak, and neither key nor code is sent over such: as %s it has %s",
			r.Target.Addr(), ErrAlgorithms, negotiation.What, list(negotiation.RequestedAlgorithms))
	case errors.Is(err, ErrUnreachable):
		return d, err
	case hungUp(err) && d.sent != sentNothing:
		if said := parting(err, hello{}); said != "" { // a refusal, and no more
			d.parting = "; the server hung up and said " + said
		}
	case hungUp(err):
		h, _ := rec.hello()
		return d, r.hungUpError(err, h)
	default:
		return d, r.unreachable(context.Background(), err)
	}
	return d, nil
}

// keyRow says what the key alone came to.
func (r *run) keyRow(d dialogue) {
	switch {
	case d.in && d.sent == sentNothing:
		r.wrong(rowKeyAlone, "in, without even a key", "")
	case d.in && d.sent == sentKey:
		r.wrong(rowKeyAlone, "in", "the key alone opens this account, from here")
	case !d.keyTaken:
		r.wrong(rowKeyAlone, "out, the key is not taken", "it is none of this account, or there were too many others before it"+d.parting)
	case !slices.Equal(d.then, []string{keyboardInteractive}):
		r.wrong(rowKeyAlone, "out, wants "+list(d.then), "")
	default:
		r.ok(rowKeyAlone, "out, wants "+list(d.then))
	}
}

// codeRow says what was asked for after the key, and what the code came to. It
// tells whether key and code opened the account.
func (r *run) codeRow(d dialogue, code string) bool {
	if d.sent == sentNothing || d.sent == sentKey {
		r.skip("the server did not get as far", slices.Concat(keyRows, codeRows)...)
		return false
	}
	switch {
	case len(d.prompts) == 0 && d.in:
		r.wrong(rowPrompt, "in, without a prompt", "the key alone opens this account, from here")
	case len(d.prompts) == 0:
		r.wrong(rowPrompt, "none, out at once", limited+d.words())
	case d.unexpected:
		r.wrong(rowPrompt, quoted(d.prompts), "clients look for the stock prompt")
	default:
		r.ok(rowPrompt, quoted(d.prompts))
	}
	switch {
	case code == "":
		return false
	case d.sent != sentCode:
		r.skip("no code is given to such a prompt", codeRows...)
		return false
	case len(d.prompts) > 1:
		r.wrong(rowKeyCode, "out, a second prompt: "+quoted(d.prompts[1:]), "one line of PAM too many")
	case d.in:
		r.ok(rowKeyCode, "in")
	default:
		r.wrong(rowKeyCode, "out, after the prompt", "the code is wrong, too old or used already; is the clock of this computer right?"+d.words())
	}
	return d.in && len(d.prompts) == 1
}

const limited = "so the module refuses after too many attempts: stay away for half a minute, or five minutes where the limit is strict, and try once more"

// again tries a code that has been used.
func (r *run) again(ctx context.Context, keys []ssh.Signer, code string) error {
	d, err := r.login(ctx, keys, code)
	if err != nil {
		r.skip("no answer", rowSameCode)
		return err
	}
	r.refused(rowSameCode, d, "a code works more than once")
	return nil
}

// wrongCode waits until an attempt more would not meet the rate limit.
func (r *run) wrongCode(ctx context.Context, keys []ssh.Signer, first dialogue) error {
	switch {
	case r.Wrong == nil:
		r.skip(r.WhyNoWrong, rowWrongCode)
		return nil
	case len(first.prompts) == 0 || first.unexpected:
		r.skip("there was no prompt for it", rowWrongCode)
		return nil
	}
	if d := r.pace.due(); d > 0 {
		r.Say(fmt.Sprintf("waiting %v, so as not to meet the rate limit of the account", d.Round(time.Second)))
		if err := r.pace.sleep(ctx, d); err != nil {
			return err
		}
	}
	code, err := r.Wrong(ctx)
	if err != nil {
		return err
	}
	d, err := r.login(ctx, keys, code)
	if err != nil {
		r.skip("no answer", rowWrongCode)
		return err
	}
	r.refused(rowWrongCode, d, "any code opens the account")
	return nil
}

// refused makes the row of a code that must not open the account. Only an
// answer to it tells.
func (r *run) refused(row string, d dialogue, otherwise string) {
	switch {
	case d.in:
		r.wrong(row, "in", otherwise)
	case d.sent != sentCode || len(d.prompts) != 1:
		r.report.set(row, StatusNotTried, "out before the code", limited)
	default:
		r.ok(row, "out, after the prompt")
	}
}

// words is what the server said with the prompt.
func (d dialogue) words() string {
	if d.said == "" {
		return d.parting
	}
	return fmt.Sprintf("; the server says %+.200q", d.said) + d.parting
}

func quoted(prompts []string) string {
	var text string
	for i, p := range prompts {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%+.100q", p)
	}
	return text
}
