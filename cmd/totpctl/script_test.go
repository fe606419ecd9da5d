// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// scriptCommands are what the scripts have besides totpctl. Envelopes are made
// where they are needed, so that none in testdata grows old.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"seal-card":     sealCard,
	"seal-file":     sealFile,
	"ssh-key":       sshKey,
	"lock-identity": lockIdentity,
	"flip":          flip,
	"cut":           cut,
	"drop-lines":    dropLines,
	"indent":        indent,
	"fold":          fold,
	"replace":       replace,
	"join":          join,
	"code":          code,
	"full":          full,
	"utf16":         toUTF16,
	"mode":          mode,
	"guest":         guest,
	"certificate":   certificate,
	"free-port":     freePort,
	"put-card":      putCard,
	"secret-only":   secretOnly,
	"token-not-in":  tokenNotIn,
	"report":        bakeReport,
	"ssh-server":    sshServer,
	"ssh-agent":     sshAgent,
	"await":         await,
}

// sealCard makes a card and seals it.
//
//	seal-card [-user alice] [-host web-1] [-instance i-1] [-gen 1] [-supersedes ID]
//	          [-id ID] [-form armor|binary|base64|json|console|compact] [-a] [-user-data FILE] -r RECIPIENT|FILE... -o FILE
//
// -a appends. With -user-data the card knows the token in that document, and its
// own readers. The card's ID, secret, the secret as it is typed, and the first
// backup code are then in $ID, $SECRET, $TYPED and $BACKUP, and with the user's
// name in upper case appended as well: $ID_ALICE.
func sealCard(ts *testscript.TestScript, neg bool, args []string) {
	var s cardSpec
	var to recipients
	flags := flag.NewFlagSet("seal-card", flag.ContinueOnError)
	flags.StringVar(&s.user, "user", "alice", "")
	flags.StringVar(&s.host, "host", "web-1", "")
	flags.StringVar(&s.instance, "instance", "i-0a1b2c3d", "")
	flags.IntVar(&s.generation, "gen", 1, "")
	flags.StringVar(&s.supersedes, "supersedes", "", "")
	flags.StringVar(&s.id, "id", "", "")
	form := flags.String("form", "armor", "")
	marks := flags.String("marks", "", "")
	appending := flags.Bool("a", false, "")
	output := flags.String("o", "", "")
	userData := flags.String("user-data", "", "")
	flags.Var(&to, "r", "")
	ts.Check(flags.Parse(args))

	c := newCard(s)
	if *userData != "" {
		c.Token = card.TokenMAC(tokenIn(ts, *userData), c.User)
		c.Recipients = nil
		for _, r := range to.read(ts) {
			c.Recipients = append(c.Recipients, r.Hash())
		}
	}
	for _, suffix := range []string{"", "_" + strings.ToUpper(s.user)} {
		ts.Setenv("ID"+suffix, c.ID)
		ts.Setenv("SECRET"+suffix, c.Secret)
		ts.Setenv("TYPED"+suffix, strings.Join(regexp.MustCompile("....").FindAllString(c.Secret, -1), " "))
		ts.Setenv("BACKUP"+suffix, c.BackupCodes[0])
	}
	if *marks == "" {
		*marks = c.User
	}
	text, err := c.Text()
	if *form == "compact" {
		text, err = c.Compact()
	}
	ts.Check(err)
	sealed, err := seal.Seal(text, to.read(ts))
	ts.Check(err)
	writeForm(ts, *output, *appending, *form, c.ID, *marks, sealed)
}

// tokenIn returns the enrollment token of a document.
func tokenIn(ts *testscript.TestScript, name string) []byte {
	m := regexp.MustCompile(`token: (\S{22})`).FindStringSubmatch(ts.ReadFile(name))
	if m == nil {
		ts.Fatalf("there is no token in %s", name)
	}
	token, err := base64.RawURLEncoding.DecodeString(m[1])
	ts.Check(err)
	return token
}

// sealFile seals any file: seal-file -r RECIPIENT -o FILE INPUT.
func sealFile(ts *testscript.TestScript, neg bool, args []string) {
	var to recipients
	flags := flag.NewFlagSet("seal-file", flag.ContinueOnError)
	output := flags.String("o", "", "")
	flags.Var(&to, "r", "")
	ts.Check(flags.Parse(args))
	sealed, err := seal.Seal([]byte(ts.ReadFile(flags.Arg(0))), to.read(ts))
	ts.Check(err)
	writeForm(ts, *output, false, "armor", "", "", sealed)
}

func writeForm(ts *testscript.TestScript, name string, appending bool, form, id, user string, sealed []byte) {
	out := sealed
	var err error
	switch form {
	case "binary":
	case "armor":
		out, err = seal.Armor(sealed)
	case "base64", "compact":
		out = []byte(base64.StdEncoding.EncodeToString(sealed) + "\n")
	case "json": // as the channel http sends it
		out, err = seal.Armor(sealed)
		out = []byte(`{"id":"` + id + `","user":"` + user + `","envelope":` + inJSON(string(out)) + "}")
	case "console":
		out, err = console.Encode(id, user, sealed)
	default:
		ts.Fatalf("unknown form %q", form)
	}
	ts.Check(err)
	if appending {
		before, err := os.ReadFile(ts.MkAbs(name))
		ts.Check(err)
		out = append(before, out...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(name), out, 0o600))
}

// recipients are the values of -r: a recipient, or a file that ends with one.
type recipients []string

func (r *recipients) String() string     { return "" }
func (r *recipients) Set(s string) error { *r = append(*r, s); return nil }

func (r recipients) read(ts *testscript.TestScript) []seal.Recipient {
	var all []seal.Recipient
	for _, s := range r {
		if data, err := os.ReadFile(ts.MkAbs(s)); err == nil {
			s = strings.TrimSpace(string(data))
		}
		one, err := seal.ParseRecipient(s)
		ts.Check(err)
		all = append(all, one)
	}
	return all
}

type cardSpec struct {
	user, host, instance string
	generation           int
	supersedes           string
	id                   string // as who forges a card takes it from another
}

// newCard makes the same card for the same specification, and another for any
// other.
func newCard(s cardSpec) card.Card {
	var seed [32]byte
	copy(seed[:], fmt.Sprintf("%s %s %s %d", s.user, s.host, s.instance, s.generation))
	random := mathrand.NewChaCha8(seed)
	e, err := otp.New(otp.Params{Issuer: "Example Hosting", Account: s.user + "@" + s.host, BackupCodes: 8}, random)
	must(err)
	id := make([]byte, 16)
	random.Read(id)
	c := card.Card{
		V: card.Version, Type: card.Type,
		ID:         strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id)),
		Generation: s.generation, Supersedes: s.supersedes,
		InstanceID: s.instance, Hostname: s.host, User: s.user, Issuer: "Example Hosting",
		Created: time.Date(2026, 7, 1, 12, s.generation, 0, 0, time.UTC),
		OTPAuth: e.URI, Secret: e.Secret, Algorithm: "SHA1", Digits: 6, Period: 30,
		BackupCodes: e.BackupCodes,
		Recipients:  []string{"sha256:0123456789abcdef"},
		Agent:       "totp-agent 0.1.0",
	}
	if s.id != "" {
		c.ID = s.id
	}
	for _, key := range hostKeys(s.instance) {
		line, err := card.HostKey(string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))))
		must(err)
		c.HostKeys = append(c.HostKeys, line)
	}
	return c
}

// hostKeys are the keys of an instance, the same in each run.
func hostKeys(instance string) []ssh.PublicKey {
	var seed [32]byte
	copy(seed[:], instance)
	ed, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed[:]).Public())
	must(err)
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(seed[1:], 1))
	must(err)
	ec, err := ssh.NewPublicKey(private.Public())
	must(err)
	return []ssh.PublicKey{ed, ec}
}

// sshKey makes a key pair as ssh-keygen does:
// ssh-key [-t ed25519|rsa|ecdsa] [-p PASSPHRASE] FILE.
func sshKey(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("ssh-key", flag.ContinueOnError)
	kind := flags.String("t", "ed25519", "")
	passphrase := flags.String("p", "", "")
	ts.Check(flags.Parse(args))
	var private any
	var public any
	switch *kind {
	case "rsa":
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		ts.Check(err)
		private, public = key, key.Public()
	case "ecdsa":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		private, public = key, key.Public()
	default:
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		ts.Check(err)
		private, public = key, pub
	}
	var block *pem.Block
	var err error
	if *passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(*passphrase))
	}
	ts.Check(err)
	pub, err := ssh.NewPublicKey(public)
	ts.Check(err)
	name := ts.MkAbs(flags.Arg(0))
	ts.Check(os.WriteFile(name, pem.EncodeToMemory(block), 0o600))
	ts.Check(os.WriteFile(name+".pub", ssh.MarshalAuthorizedKey(pub), 0o600))
}

// lockIdentity encrypts an identity file as age -p does:
// lock-identity [-armor] PASSPHRASE IN OUT.
func lockIdentity(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("lock-identity", flag.ContinueOnError)
	armored := flags.Bool("armor", false, "")
	ts.Check(flags.Parse(args))
	r, err := age.NewScryptRecipient(flags.Arg(0))
	ts.Check(err)
	r.SetWorkFactor(10)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	ts.Check(err)
	_, err = w.Write([]byte(ts.ReadFile(flags.Arg(1))))
	ts.Check(err)
	ts.Check(w.Close())
	data := out.Bytes()
	if *armored {
		var text bytes.Buffer
		a := armor.NewWriter(&text)
		a.Write(data)
		ts.Check(a.Close())
		data = text.Bytes()
	}
	ts.Check(os.WriteFile(ts.MkAbs(flags.Arg(2)), data, 0o600))
}

// change rewrites a file.
func change(ts *testscript.TestScript, name string, f func([]byte) []byte) {
	data, err := os.ReadFile(ts.MkAbs(name))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name), f(data), 0o600))
}

// flip changes one bit: flip FILE OFFSET, from the end if negative.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	change(ts, args[0], func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	})
}

// cut removes bytes from the end: cut FILE N.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	change(ts, args[0], func(b []byte) []byte { return b[:len(b)-n] })
}

// dropLines removes the lines that match, or the first of them:
// drop-lines [-first] PATTERN FILE.
func dropLines(ts *testscript.TestScript, neg bool, args []string) {
	first := args[0] == "-first"
	if first {
		args = args[1:]
	}
	pattern := regexp.MustCompile(args[0])
	dropped := 0
	change(ts, args[1], func(b []byte) []byte {
		var kept []byte
		for line := range bytes.Lines(b) {
			if pattern.Match(bytes.TrimSpace(line)) && !(first && dropped > 0) {
				dropped++
				continue
			}
			kept = append(kept, line...)
		}
		return kept
	})
	if dropped == 0 {
		ts.Fatalf("drop-lines: no line matches %q", args[0])
	}
}

// indent puts a prefix before each line: indent PREFIX FILE.
func indent(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, args[1], func(b []byte) []byte {
		var out []byte
		for line := range bytes.Lines(b) {
			out = append(append(out, args[0]...), line...)
		}
		return out
	})
}

// fold breaks lines after so many columns, as fold(1): fold N FILE.
func fold(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	change(ts, args[1], func(b []byte) []byte {
		return regexp.MustCompile(fmt.Sprintf(".{%d}", n)).ReplaceAll(b, []byte("$0\n"))
	})
}

// replace replaces a text that must be there: replace OLD NEW FILE.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, args[2], func(b []byte) []byte {
		if !bytes.Contains(b, []byte(args[0])) {
			ts.Fatalf("%q is not in %s", args[0], args[2])
		}
		return bytes.ReplaceAll(b, []byte(args[0]), []byte(args[1]))
	})
}

// join writes files one after the other into the last one named, which may be
// among them.
func join(ts *testscript.TestScript, neg bool, args []string) {
	var all []byte
	for _, name := range args[:len(args)-1] {
		all = append(all, ts.ReadFile(name)...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[len(args)-1]), all, 0o600))
}

// code asserts an exit code: code 2 COMMAND ARG...
func code(ts *testscript.TestScript, neg bool, args []string) {
	got := 0
	if exit := new(exec.ExitError); errors.As(ts.Exec(args[1], args[2:]...), &exit) {
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// full runs a command whose standard output is a full disk, and wants it to
// fail.
func full(ts *testscript.TestScript, neg bool, args []string) {
	if err := ts.Exec("sh", append([]string{"-c", `exec "$@" >/dev/full`, "sh"}, args...)...); err == nil {
		ts.Fatalf("it succeeded")
	}
}

// toUTF16 does to a file what PowerShell's redirection does.
func toUTF16(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, args[0], func(b []byte) []byte {
		out := []byte{0xff, 0xfe}
		for _, unit := range utf16.Encode([]rune(strings.ReplaceAll(string(b), "\n", "\r\n"))) {
			out = binary.LittleEndian.AppendUint16(out, unit)
		}
		return out
	})
}

// mode asserts the permission bits of a file: mode 0600 FILE.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("mode of %s is %s, want %s", args[1], got, args[0])
	}
}

// guest is the other end of a virtio port: it sends an envelope as the agent
// does and wants it acknowledged.
//
//	guest [-listen] SOCKET ID USER FILE
func guest(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("guest", flag.ContinueOnError)
	listen := flags.Bool("listen", false, "")
	ts.Check(flags.Parse(args))
	socket := ts.MkAbs(flags.Arg(0))
	var conn net.Conn
	if *listen {
		l, err := net.Listen("unix", socket)
		ts.Check(err)
		defer l.Close()
		conn, err = l.Accept()
		ts.Check(err)
	} else {
		var err error
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if conn, err = net.Dial("unix", socket); err == nil || time.Now().After(deadline) {
				break
			}
		}
		ts.Check(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	payload := []byte(ts.ReadFile(flags.Arg(3)))
	message, err := frame.Marshal(flags.Arg(1), flags.Arg(2), payload)
	ts.Check(err)
	_, err = conn.Write(message)
	ts.Check(err)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	ts.Check(err)
	if ok := answer == frame.OK(payload); ok == neg {
		ts.Fatalf("the host answered %q", answer)
	}
}

// certificate makes a certificate for 127.0.0.1: certificate CERT KEY.
func certificate(ts *testscript.TestScript, neg bool, args []string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, private.Public(), private)
	ts.Check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[i]), pem.EncodeToMemory(block), 0o600))
	}
}

// freePort finds a port that nobody listens on: free-port VARIABLE.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(errors.Join(err, l.Close()))
	ts.Setenv(args[0], port)
}

// putCard delivers as the channel http does: put-card -ca CERT [-token TOKEN]
// [-key KEY] [-user NAME] URL FILE. It waits for the server to listen. ! is for a
// refusal.
func putCard(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("put-card", flag.ContinueOnError)
	ca := flags.String("ca", "", "")
	token := flags.String("token", "", "")
	key := flags.String("key", "", "")
	user := flags.String("user", "", "")
	ts.Check(flags.Parse(args))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(*ca))) {
		ts.Fatalf("%s: no certificate", *ca)
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	body := ts.ReadFile(flags.Arg(1))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequest(http.MethodPut, flags.Arg(0), strings.NewReader(body))
		ts.Check(err)
		if *token != "" {
			req.Header.Set("Authorization", "Bearer "+*token)
		}
		if *user != "" {
			req.Header.Set("X-Totp-User", *user)
		}
		if *key != "" {
			req.Header.Set(frame.SignatureHeader, frame.Sign([]byte(*key), req.Method, req.URL.RequestURI(), *user, []byte(body)))
		}
		resp, err := client.Do(req)
		if err != nil && time.Now().Before(deadline) {
			continue
		}
		ts.Check(err)
		resp.Body.Close()
		if ok := resp.StatusCode < 300; ok == neg {
			ts.Fatalf("the server answered %s", resp.Status)
		}
		return
	}
}

// secretOnly asserts that the secret and the backup codes of the last card are
// in no file of the working directory but those named.
func secretOnly(ts *testscript.TestScript, neg bool, args []string) {
	allowed := make(map[string]bool)
	for _, name := range args {
		allowed[name] = true
	}
	entries, err := os.ReadDir(ts.MkAbs("."))
	ts.Check(err)
	for _, e := range entries {
		if e.IsDir() || allowed[e.Name()] {
			continue
		}
		data, err := os.ReadFile(ts.MkAbs(e.Name()))
		ts.Check(err)
		for _, name := range []string{"SECRET", "BACKUP"} {
			if bytes.Contains(data, []byte(ts.Getenv(name))) {
				ts.Fatalf("%s is in %s", name, e.Name())
			}
		}
	}
}

// tokenNotIn asserts that the token of a document is not in a file:
// token-not-in DOC FILE.
func tokenNotIn(ts *testscript.TestScript, neg bool, args []string) {
	token := base64.RawURLEncoding.EncodeToString(tokenIn(ts, args[0]))
	if strings.Contains(ts.ReadFile(args[1]), token) {
		ts.Fatalf("the token is in %s", args[1])
	}
}

// bakeReport writes the report of an image with an escrow recipient, in which
// instances may name recipients unless it is closed: report [-closed] FILE FILE.
func bakeReport(ts *testscript.TestScript, neg bool, args []string) {
	from := "[image, instance]"
	if args[0] == "-closed" {
		from, args = "[image]", args[1:]
	}
	policy := "version: 1\nrecipients_from: " + from + "\nescrow_recipients: [" + strings.TrimSpace(ts.ReadFile(args[0])) + "]\n"
	text, err := json.Marshal(map[string]any{"version": 1, "policy": policy})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
