// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// maxAgentKeys bounds the keys of an agent that are offered: each one that is not
// taken counts against MaxAuthTries, which is 6 at most servers.
const maxAgentKeys = 5

var (
	// errLoginKey is returned for a file that holds no SSH key to log in with.
	errLoginKey = errors.New("is no SSH key to log in with")

	// errCode is returned for something else than six digits.
	errCode = errors.New("is no code: six digits are wanted")
)

// loginKeys returns what offers the caller's SSH keys, or nil where there are
// none. Passphrases are asked for when it is called.
func (o verifyOptions) loginKeys(ctx context.Context) (keys func(context.Context) ([]ssh.Signer, error), done func(), err error) {
	done = func() {}
	var files []keyFile
	wantAgent := len(o.keys) == 0
	for _, name := range o.keys {
		k, err := readKeyFile(name)
		if err != nil {
			return nil, done, err
		}
		files = append(files, k)
		wantAgent = wantAgent || k.public != nil
	}
	var ag agent.Agent
	if wantAgent {
		conn, err := dialAgent(ctx)
		switch {
		case err == nil:
			done = func() { conn.Close() }
			// An agent may wait for somebody to touch a device.
			context.AfterFunc(ctx, done)
			ag = agent.NewClient(conn)
		case len(o.keys) > 0:
			return nil, done, err
		default:
			if os.Getenv(agentVariable) != "" {
				warningf("%v", err)
			}
			return nil, done, nil
		}
	}
	if len(o.keys) == 0 {
		all, err := ag.Signers()
		if err != nil {
			done()
			return nil, func() {}, fmt.Errorf("ssh-agent: %w", err)
		}
		if len(all) == 0 {
			return nil, done, nil
		}
		if len(all) > maxAgentKeys {
			printf("the ssh-agent has %d keys, of which the first %d are offered", len(all), maxAgentKeys)
			hintf("name the right one, also by its public half: -i KEY.pub")
			all = all[:maxAgentKeys]
		}
		return func(context.Context) ([]ssh.Signer, error) { return all, nil }, done, nil
	}
	return func(context.Context) ([]ssh.Signer, error) {
		var all []ssh.Signer
		for _, k := range files {
			s, err := k.signer(ag)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
		return all, nil
	}, done, nil
}

// keyFile is a file named by -i.
type keyFile struct {
	name    string
	private []byte
	public  ssh.PublicKey // of a key that the agent has
}

func readKeyFile(name string) (keyFile, error) {
	if name == "-" {
		return keyFile{}, usageErrorf("-i -: a key is not read from standard input; name a file")
	}
	data, err := readInput(name, maxIdentity)
	if err != nil {
		return keyFile{}, fmt.Errorf("key: %w", err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case strings.HasPrefix(text, "PuTTY-User-Key-File-"):
		return keyFile{}, withHints(fmt.Errorf("key %q: %w: it is a PuTTY key file (.ppk)", name, errLoginKey),
			"PuTTYgen turns it into an OpenSSH key: Conversions > Export OpenSSH key (force new file format)")
	case strings.HasPrefix(text, "AGE-SECRET-KEY-"), strings.Contains(text, "\nAGE-SECRET-KEY-"):
		return keyFile{}, withHints(fmt.Errorf("key %q: %w: it is an age identity", name, errLoginKey), "the identity that opens the card is named by -I")
	case strings.HasPrefix(text, "-----BEGIN "):
		warnReadable(name)
		return keyFile{name: name, private: append([]byte(text), '\n')}, nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return keyFile{}, fmt.Errorf("key %q: %w", name, errLoginKey)
	}
	return keyFile{name: name, public: public}, nil
}

func (k keyFile) signer(ag agent.Agent) (ssh.Signer, error) {
	if k.public != nil {
		all, err := ag.Signers()
		if err != nil {
			return nil, fmt.Errorf("ssh-agent: %w", err)
		}
		for _, s := range all {
			if string(s.PublicKey().Marshal()) == string(k.public.Marshal()) {
				return s, nil
			}
		}
		return nil, withHints(fmt.Errorf("key %q: is a public key, and the ssh-agent does not have its private half", k.name),
			"name the private key, or add it: ssh-add FILE")
	}
	s, err := ssh.ParsePrivateKey(k.private)
	locked := new(ssh.PassphraseMissingError)
	if errors.As(err, &locked) {
		which := "the SSH key"
		if locked.PublicKey != nil {
			which += " " + ssh.FingerprintSHA256(locked.PublicKey)
		}
		pass, err := readSecret(fmt.Sprintf("Passphrase of %s in %q:", which, k.name))
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.name, err)
		}
		defer clear(pass)
		s, err = ssh.ParsePrivateKeyWithPassphrase(k.private, pass)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, fmt.Errorf("key %q: the passphrase is wrong", k.name)
		}
		if err != nil {
			return nil, unusableKey(k.name)
		}
		return s, nil
	}
	if err != nil {
		return nil, unusableKey(k.name)
	}
	return s, nil
}

// unusableKey does not quote: what a parser says may hold parts of the key.
func unusableKey(name string) error {
	return withHints(fmt.Errorf("key %q: %w: it is damaged, or of a type that only ssh-agent can use", name, errLoginKey),
		"for a key in hardware (sk), run ssh-add and name the public key: -i KEY.pub")
}

const agentVariable = "SSH_AUTH_SOCK"

func dialAgent(ctx context.Context) (net.Conn, error) {
	name := os.Getenv(agentVariable)
	if name == "" {
		return nil, withHints(fmt.Errorf("ssh-agent: %s is not set", agentVariable), "start one, and add the key: ssh-add FILE")
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	return conn, nil
}

var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// askCode asks for the code that the app shows.
func askCode(context.Context) (string, error) {
	typed, err := readSecret("Code from the app:")
	if err != nil {
		return "", fmt.Errorf("--code: %w", err)
	}
	// Apps show it in two groups.
	code := strings.Join(strings.Fields(string(typed)), "")
	clear(typed)
	if !sixDigits.MatchString(code) {
		return "", fmt.Errorf("--code: what was typed %w", errCode) // not quoted: it may be a backup code
	}
	return code, nil
}

// codeOf makes codes of a card's secret.
func codeOf(c card.Card) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return otp.Code(c.Secret, time.Now()) }
}

// wrongCodeOf makes six digits that are no code of a card's secret within
// minutes.
func wrongCodeOf(c card.Card) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		var near []string
		for i := -10; i <= 10; i++ {
			code, err := otp.Code(c.Secret, time.Now().Add(time.Duration(i)*otp.Period*time.Second))
			if err != nil {
				return "", err
			}
			near = append(near, code)
		}
		for {
			n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
			if err != nil {
				return "", err
			}
			if code := fmt.Sprintf("%06d", n); !slices.Contains(near, code) {
				return code, nil
			}
		}
	}
}
