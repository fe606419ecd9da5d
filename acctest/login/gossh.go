// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

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

// Go is golang.org/x/crypto/ssh in this process: the fastest way to one answer.
// It cannot say which methods a refusing server would have gone on with.
type Go struct{}

// Name returns "x/crypto/ssh".
func (Go) Name() string { return "x/crypto/ssh" }

// Login connects, authenticates and runs one command.
func (Go) Login(ctx context.Context, s Server, t Try) Result {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var r Result
	err := r.goLogin(ctx, s, t)
	r.Took = time.Since(start)
	switch {
	case err == nil:
		r.Outcome = In
	case errors.Is(err, errRefused) && len(r.Prompts) > 0:
		r.Outcome = Refused
	case errors.Is(err, errRefused):
		r.Outcome = Unasked
	default:
		r.Detail = err.Error()
	}
	return r
}

// errRefused means that the server is there and wants none of what was offered.
var errRefused = errors.New("refused")

// Run logs in with key and a fresh code, runs one command line, and returns what
// it wrote to its standard output. The error of a command that fails carries its
// standard error.
func (Go) Run(ctx context.Context, s Server, a Account, command string) (string, error) {
	// The code after the wait: it may not be valid for so long.
	done, err := a.Codes.Pace(ctx)
	if err != nil {
		return "", err
	}
	code, err := a.Codes.Next(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	var out string
	r := Result{}
	err = r.goSession(ctx, s, Try{User: a.User, Key: a.Key, Methods: []string{PublicKey, KeyboardInteractive}, Answers: []string{code}},
		func(session *ssh.Session) error {
			done()
			var stdout, stderr strings.Builder
			session.Stdout, session.Stderr = &stdout, &stderr
			err := session.Run(command)
			if out = stdout.String(); err != nil {
				err = fmt.Errorf("%w\n%s", err, strings.TrimSpace(stderr.String()))
			}
			return err
		})
	return out, err
}

// HostKey returns the Ed25519 host key that a server shows, as a [Server] has it, to
// be compared with the right one later.
func (Go) HostKey(ctx context.Context, host string, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var shown string
	_, _, _, err = ssh.NewClientConn(conn, addr, &ssh.ClientConfig{HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
		shown = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		return errHostKey // that is all there was to know
	}})
	if shown == "" {
		return "", err
	}
	return shown, nil
}

func (r *Result) goLogin(ctx context.Context, s Server, t Try) error {
	return r.goSession(ctx, s, t, func(session *ssh.Session) error {
		p := newProof(t.User)
		out, err := session.Output(p.command)
		if err == nil && !strings.Contains(string(out), p.output) {
			err = fmt.Errorf("logged in as somebody else than %s", t.User)
		}
		return err
	})
}

// goSession logs in, and hands a session to do.
func (r *Result) goSession(ctx context.Context, s Server, t Try, do func(*ssh.Session) error) error {
	addr := net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, r.goConfig(s, t))
	if err != nil {
		// The package has no error value for this. Message 51 is the server's
		// USERAUTH_FAILURE, RFC 4252, where a prompt was waited for.
		if strings.Contains(err.Error(), "unable to authenticate") || strings.Contains(err.Error(), "unexpected message type 51 ") || errors.Is(err, errAsked) {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		return err
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	return do(session)
}

func (r *Result) goConfig(s Server, t Try) *ssh.ClientConfig {
	answer := func(prompt string) (string, error) {
		if len(r.Prompts) == len(t.Answers) {
			return "", errAsked
		}
		r.Prompts = append(r.Prompts, prompt)
		return t.Answers[len(r.Prompts)-1], nil
	}
	var auth []ssh.AuthMethod
	for _, m := range t.Methods {
		switch m {
		case PublicKey:
			if t.Key != nil {
				auth = append(auth, ssh.PublicKeys(t.Key.signer))
			}
		case Password:
			auth = append(auth, ssh.PasswordCallback(func() (string, error) { return answer("password: ") }))
		case KeyboardInteractive:
			auth = append(auth, ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
				var answers []string
				for _, q := range questions {
					a, err := answer(q)
					if err != nil {
						return nil, err
					}
					answers = append(answers, a)
				}
				return answers, nil
			}))
		}
	}
	return &ssh.ClientConfig{
		User:              t.User,
		Auth:              auth,
		HostKeyAlgorithms: hostKeyAlgorithms(s.HostKeys),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
			if slices.Contains(s.HostKeys, line) {
				return nil
			}
			return errHostKey
		},
		BannerCallback: func(text string) error { r.Banner += text; return nil },
	}
}

// hostKeyAlgorithms keeps the server from showing a key of a type that is not
// among the expected ones.
func hostKeyAlgorithms(keys []string) []string {
	var algorithms []string
	for _, key := range keys {
		name, _, _ := strings.Cut(key, " ")
		if name == ssh.KeyAlgoRSA {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		algorithms = append(algorithms, name)
	}
	return algorithms
}
