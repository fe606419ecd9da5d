// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A step is one attempt to authenticate within a connection.
type step string

const (
	withKey      step = "key"
	withCode     step = "code" // keyboard-interactive
	withPassword step = "password"
)

// An attempt is one connection.
type attempt struct {
	addr     string
	from     net.Addr // nil: the system's choice
	user     string
	steps    []step
	key      ssh.Signer
	password string
	hostKeys []ssh.PublicKey

	// code is the answer to every question but that for a password. It is made when the
	// server asks: on a slow machine a login takes longer than a code is valid.
	code func() (string, error)
}

// The words of a dialogue, by which rows say what they expect.
const (
	wantsKey  = "wants publickey"
	keyThen   = "key taken, wants keyboard-interactive"
	asksCode  = `asks "Verification code: "`
	keyDenied = "key refused"
	in        = "in"
	out       = "out"
)

func dialogue(words ...string) string { return strings.Join(words, "; ") }

var (
	errEnough  = errors.New("self-test: nothing left to try")
	errHostKey = errors.New("self-test: another server's host key")
)

// rounds bounds how often a server may ask in one attempt.
const rounds = 6

// do connects, goes through the steps as far as the server lets it, and returns
// the dialogue. Who gets in runs a command, to see that the session works, too.
func (a attempt) do(limit time.Duration) string {
	var said []string
	next := 0 // of the steps
	cfg := &ssh.ClientConfig{
		User:          a.user,
		ClientVersion: "SSH-2.0-totp_selftest",
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if slices.ContainsFunc(a.hostKeys, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) }) {
				return nil
			}
			return errHostKey
		},
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256},
		AuthCallback: func(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			wants := "wants " + strings.Join(c.AllowedMethods, ", ")
			if next == 0 {
				said = append(said, wants)
			} else {
				switch last, taken := a.steps[next-1], len(c.PartialSuccessMethods); {
				case taken > 0 && c.PartialSuccessMethods[taken-1] == last.method() && !slices.Contains(said, string(last)+" taken, "+wants):
					said = append(said, string(last)+" taken, "+wants)
				default:
					said = append(said, string(last)+" refused")
				}
			}
			if next == len(a.steps) {
				return nil, errEnough
			}
			next++
			return a.method(a.steps[next-1], &said), nil
		},
	}
	d := net.Dialer{Timeout: limit, LocalAddr: a.from}
	conn, err := d.Dial("tcp", a.addr)
	if err != nil {
		return dialogue("no connection", err.Error())
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	c, channels, requests, err := ssh.NewClientConn(conn, a.addr, cfg)
	switch {
	case err == nil:
		client := ssh.NewClient(c, channels, requests)
		defer client.Close()
		said = append(said, in)
		if err := session(client); err != nil {
			said = append(said, "but no session", err.Error())
		}
	case errors.Is(err, errEnough):
		said = append(said, out)
	case len(said) == 0:
		said = append(said, "no login", err.Error())
	default:
		said = append(said, "connection lost", err.Error())
	}
	return dialogue(said...)
}

// session runs a command. Its status does not matter: a forced command may be in
// its place.
func session(c *ssh.Client) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Run(":"); err != nil {
		if _, ok := errors.AsType[*ssh.ExitError](err); !ok {
			return err
		}
	}
	return nil
}

// method is the step's name in RFC 4252 and RFC 4256.
func (s step) method() string {
	return map[step]string{withKey: "publickey", withCode: "keyboard-interactive", withPassword: "password"}[s]
}

func (a attempt) method(s step, said *[]string) ssh.AuthMethod {
	switch s {
	case withKey:
		return ssh.PublicKeys(a.key)
	case withPassword:
		return ssh.Password(a.password)
	}
	n := 0
	return ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		if n++; n > rounds {
			return nil, errors.New("it asks without end")
		}
		var answers []string
		for _, q := range questions {
			*said = append(*said, fmt.Sprintf("asks %q", q))
			if strings.Contains(strings.ToLower(q), "password") {
				answers = append(answers, a.password)
			} else {
				code, err := a.code()
				if err != nil {
					return nil, err
				}
				answers = append(answers, code)
			}
		}
		return answers, nil
	})
}
