// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const (
	token  = "6e7f0a1b2c3d4e5f60718293a4b5c6d7"
	key    = "0123456789abcdef0123456789abcdef"
	common = "fedcba9876543210fedcba9876543210"
)

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// bodyMAC is what webhooks of other makers check: it covers the body alone.
func bodyMAC(key string, body []byte) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func sign(key, target string, body []byte) string {
	return frame.Sign([]byte(key), http.MethodPut, target, "", body)
}

// panel is a server under test.
type panel struct {
	*host
	url  string
	pool *x509.CertPool
	http.Client
}

// certify writes a certificate for 127.0.0.1 and its key.
func certify(t testing.TB, certFile, keyFile string) (certificate *x509.Certificate) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	spec := &x509.Certificate{
		SerialNumber: serial,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	put(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	certificate, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func put(t testing.TB, name, text string) {
	t.Helper()
	// A new file each time, as careful programs do it.
	tmp := name + ".new"
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, name)); err != nil {
		t.Fatal(err)
	}
}

// serve runs a server in the background.
func serve(t testing.TB, change func(*Options)) *panel {
	t.Helper()
	dir := t.TempDir()
	log := &syncBuffer{}
	h := &host{t: t, log: log, end: make(chan error, 1), Options: Options{
		Dir: filepath.Join(dir, "in"),
		Log: log,
		HTTP: HTTP{
			Addr:        "127.0.0.1:0",
			Cert:        filepath.Join(dir, "cert.pem"),
			Key:         filepath.Join(dir, "key.pem"),
			Credentials: filepath.Join(dir, "credentials"),
		},
	}}
	pool := x509.NewCertPool()
	pool.AddCert(certify(t, h.HTTP.Cert, h.HTTP.Key))
	put(t, h.HTTP.Credentials, "# clients\n\nweb-1 token-sha256 "+hash(token)+"\nweb-2 hmac-sha256 "+key+"\n* hmac-sha256 "+common+"\n")
	if change != nil {
		change(&h.Options)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { h.end <- Serve(ctx, h.Options) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-h.end:
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	})
	p := &panel{host: h, pool: pool}
	p.Client = http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 1000}}
	t.Cleanup(p.CloseIdleConnections)
	h.wait(func() bool {
		_, after, ok := strings.Cut(log.String(), "listening on ")
		p.url, _, _ = strings.Cut(after, "\n")
		return ok && strings.Contains(after, "\n")
	})
	return p
}

// request is what a test sends; the zero value of a field is the usual.
type request struct {
	method, path string
	header       map[string]string
	key          string // signs the request
	body         []byte
}

func (p *panel) do(r request) (status int, answer string, header http.Header) {
	p.t.Helper()
	if r.method == "" {
		r.method = http.MethodPut
	}
	req, err := http.NewRequest(r.method, p.url+r.path, bytes.NewReader(r.body))
	if err != nil {
		p.t.Fatal(err)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	if r.key != "" {
		req.Header.Set(frame.SignatureHeader, frame.Sign([]byte(r.key), r.method, req.URL.RequestURI(), req.Header.Get(frame.UserHeader), r.body))
	}
	resp, err := p.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func (p *panel) expect(r request, status int, answer string) {
	p.t.Helper()
	if got, text, _ := p.do(r); got != status || text != answer {
		p.t.Fatalf("%s: %d %q, want %d %q", r.path, got, text, status, answer)
	}
}

func raw(t testing.TB, armored []byte) []byte {
	t.Helper()
	b, err := seal.Dearmor(armored)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func with(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func TestServe(t *testing.T) {
	p := serve(t, nil)
	alice, bob := envelope(t, 1000), envelope(t, 3000)
	binary := raw(t, bob)

	// Each way to show who one is, each form of an envelope, each method, each
	// place for the user.
	p.expect(request{path: "/web-1/" + aliceID, header: with("X-Token", token, "X-Totp-User", "alice"), body: alice}, 201, frame.OK(alice))
	p.expect(request{path: "/web-1/" + bobID + "?user=bob", header: with("Authorization", "Bearer "+token), body: binary, method: "POST"}, 201, frame.OK(binary))
	p.expect(request{path: "/web-2/" + aliceID, key: key, body: alice}, 201, frame.OK(alice))
	p.expect(request{path: "/web-3/" + aliceID, key: common, body: alice}, 201, frame.OK(alice))
	p.expect(request{path: "/" + aliceID, key: common, body: alice}, 201, frame.OK(alice))

	for name, want := range map[string][]byte{
		"web-1/alice-" + aliceID + ".age": alice,
		"web-1/bob-" + bobID + ".age":     binary,
		"web-2/" + aliceID + ".age":       alice,
		"web-3/" + aliceID + ".age":       alice,
		aliceID + ".age":                  alice,
	} {
		if got := p.stored(name); !bytes.Equal(got, want) {
			t.Errorf("%s: stored something else", name)
		}
		if line := "receive: " + name + ": stored, "; strings.Count(p.log.String(), line) != 1 {
			t.Errorf("%d lines %q in the log:\n%s", strings.Count(p.log.String(), line), line, p.log)
		}
	}
	if fi, err := os.Stat(filepath.Join(p.Dir, "web-1")); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", fi, err)
	}

	// The same once more, and another one of the same name.
	again := request{path: "/web-1/" + aliceID, header: with("X-Token", token, "X-Totp-User", "alice"), body: alice}
	p.expect(again, 200, frame.OK(alice))
	again.body = bob
	p.expect(again, 412, frame.Err(frame.WordExists))
	if got := p.stored("web-1/alice-" + aliceID + ".age"); !bytes.Equal(got, alice) {
		t.Error("overwritten")
	}
	for _, secret := range []string{token, key, common, hash(token)} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("a credential is in the log:\n%s", p.log)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	p := serve(t, func(o *Options) {
		// A program that was missing when somebody made the token.
		put(t, o.HTTP.Credentials, "web-1 token-sha256 "+hash(token)+"\nweb-2 hmac-sha256 "+key+"\nweb-3 token-sha256 "+hash("")+"\n* hmac-sha256 "+common+"\n")
	})
	alice := envelope(t, 1000)
	good := with("X-Token", token)
	at := "/web-2/" + aliceID
	mac := sign(key, at, alice)
	other := "0"
	if strings.HasSuffix(mac, other) {
		other = "1"
	}
	for _, tt := range []struct {
		name string
		request
		status int
		word   frame.Word
	}{
		{"no credential", request{path: "/web-1/" + aliceID}, 401, wordAuth},
		{"no credential, nor an envelope", request{path: "/web-1/" + aliceID, body: []byte("hello")}, 401, wordAuth},
		{"empty token", request{path: "/web-1/" + aliceID, header: with("Authorization", "Bearer ")}, 401, wordAuth},
		{"no token, and the hash of nothing in the file", request{path: "/web-3/" + aliceID}, 401, wordAuth},
		{"empty token, and the hash of nothing in the file", request{path: "/web-3/" + aliceID, header: with("X-Token", "")}, 401, wordAuth},
		{"signature with another end", request{path: "/web-2/" + aliceID, header: with(frame.SignatureHeader, mac[:len(mac)-1]+other)}, 401, wordAuth},
		{"signature with another beginning", request{path: "/web-2/" + aliceID, header: with(frame.SignatureHeader, "v1="+strings.Repeat("0", 32)+mac[len(mac)-32:])}, 401, wordAuth},
		{"wrong token", request{path: "/web-1/" + aliceID, header: with("X-Token", token[1:]+"0")}, 401, wordAuth},
		{"the hash of the token", request{path: "/web-1/" + aliceID, header: with("X-Token", hash(token))}, 401, wordAuth},
		{"token of another client", request{path: "/web-2/" + aliceID, header: good}, 401, wordAuth},
		{"token of a client, in the common place", request{path: "/" + aliceID, header: good}, 401, wordAuth},
		{"key of another client", request{path: "/web-1/" + aliceID, key: key}, 401, wordAuth},
		{"the common key for a client with its own", request{path: "/web-2/" + aliceID, key: common}, 401, wordAuth},
		{"signature of other bytes", request{path: "/web-2/" + aliceID, header: with(frame.SignatureHeader, sign(key, at, alice[1:]))}, 401, wordAuth},
		{"signature without a key", request{path: "/web-1/" + aliceID, header: with(frame.SignatureHeader, sign("", "/web-1/"+aliceID, alice))}, 401, wordAuth},
		{"signature of another client's request", request{path: "/web-4/" + aliceID, header: with(frame.SignatureHeader, sign(common, "/web-3/"+aliceID, alice))}, 401, wordAuth},
		{"signature of another ID", request{path: "/web-2/" + bobID, header: with(frame.SignatureHeader, mac)}, 401, wordAuth},
		{"signature of no user", request{path: at, header: with(frame.SignatureHeader, mac, frame.UserHeader, "alice")}, 401, wordAuth},
		{"signature of no user in the query", request{path: at + "?user=alice", header: with(frame.SignatureHeader, mac)}, 401, wordAuth},
		{"signature of another method", request{method: "POST", path: at, header: with(frame.SignatureHeader, mac)}, 401, wordAuth},
		{"signature of the body alone", request{path: at, header: with("X-Signature", "sha256="+bodyMAC(key, alice))}, 401, wordAuth},
		{"cut signature", request{path: "/web-2/" + aliceID, header: with(frame.SignatureHeader, mac[:20])}, 401, wordAuth},
		{"basic", request{path: "/web-1/" + aliceID, header: with("Authorization", "Basic "+token)}, 401, wordAuth},
		{"get", request{method: "GET", path: "/web-1/" + aliceID, header: good}, 405, wordMethod},
		{"delete", request{method: "DELETE", path: "/web-1/" + aliceID, header: good}, 405, wordMethod},
		{"no path", request{path: "/", header: good}, 404, wordPath},
		{"no id", request{path: "/web-1/", header: good}, 404, wordPath},
		{"deep", request{path: "/a/web-1/" + aliceID, header: good}, 404, wordPath},
		{"dots", request{path: "/../" + aliceID, header: good}, 404, wordPath},
		{"encoded dots", request{path: "/%2e%2e/" + aliceID, header: good}, 404, wordPath},
		{"encoded slash", request{path: "/web-1%2f" + aliceID + "%2f..", header: good}, 404, wordPath},
		{"client in capitals, which is another's directory where case is ignored", request{path: "/Web-1/" + aliceID, key: common}, 404, wordPath},
		{"client with a dot at its end, which Windows leaves out", request{path: "/web-1./" + aliceID, key: common}, 404, wordPath},
		{"hidden client", request{path: "/.tmp-1/" + aliceID, header: good}, 404, wordPath},
		{"long client", request{path: "/" + strings.Repeat("a", 65) + "/" + aliceID, header: good}, 404, wordPath},
		{"everybody", request{path: "/*/" + aliceID, key: common}, 404, wordPath},
		{"id", request{path: "/web-1/" + aliceID + ".age", header: good}, 404, wordPath},
		{"user", request{path: "/web-1/" + aliceID, header: with("X-Token", token, "X-Totp-User", "../alice")}, 400, frame.WordName},
		{"user in the query", request{path: "/web-1/" + aliceID + "?user=a/b", header: good}, 400, frame.WordName},
		{"too large", request{path: "/web-1/" + aliceID, header: good, body: make([]byte, frame.MaxPayload+1)}, 413, frame.WordSize},
		{"empty", request{path: "/web-1/" + aliceID, header: good, body: []byte{}}, 400, frame.WordAge},
		{"plain text", request{path: "/web-1/" + aliceID, header: good, body: []byte("JBSWY3DPEHPK3PXP")}, 400, frame.WordAge},
		{"damaged", request{path: "/web-1/" + aliceID, header: good, body: alice[:200]}, 400, frame.WordAge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.body == nil {
				tt.body = alice
			}
			p.t = t
			p.expect(tt.request, tt.status, frame.Err(tt.word))
			if got := p.files(); len(got) != 0 {
				t.Errorf("files %q", got)
			}
		})
	}
	p.t = t
	_, _, header := p.do(request{path: "/web-1/" + aliceID, body: alice})
	if header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	if strings.Contains(p.log.String(), "..") || strings.Contains(p.log.String(), token) {
		t.Errorf("what was sent is in the log:\n%s", p.log)
	}
}

// There is no way in without TLS, nor with an old one.
func TestServeTLS(t *testing.T) {
	p := serve(t, nil)
	addr := strings.TrimPrefix(p.url, "https://")
	if resp, err := http.Get("http://" + addr + "/web-1/" + aliceID); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("answers %s to plain HTTP", resp.Status)
		}
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: p.pool, MinVersion: version, MaxVersion: version})
		if err == nil {
			c.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

// A certificate that was renewed, and clients that were added, need no restart.
func TestServeReloads(t *testing.T) {
	p := serve(t, nil)
	alice := envelope(t, 100)
	other := request{path: "/web-9/" + aliceID, header: with("X-Token", "another-token"), body: alice}
	p.expect(other, 401, frame.Err(wordAuth))
	put(t, p.HTTP.Credentials, "web-9 token-sha256 "+hash("another-token")+"\n")
	p.expect(other, 201, frame.OK(alice))
	p.expect(request{path: "/web-1/" + aliceID, header: with("X-Token", token), body: alice}, 401, frame.Err(wordAuth))

	// A mistake changes nothing.
	put(t, p.HTTP.Credentials, "web-9 token another-token\n")
	p.expect(other, 200, frame.OK(alice))
	if !strings.Contains(p.log.String(), "keeping what was read before") || strings.Contains(p.log.String(), "another-token") {
		t.Errorf("log:\n%s", p.log)
	}

	fresh := certify(t, p.HTTP.Cert, p.HTTP.Key)
	c, err := tls.Dial("tcp", strings.TrimPrefix(p.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.ConnectionState().PeerCertificates[0].Equal(fresh) {
		t.Error("still the old certificate")
	}
}

func TestServeSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Options) error
		want   error
	}{
		"no certificate":      {func(o *Options) error { return os.Remove(o.HTTP.Cert) }, os.ErrNotExist},
		"no credentials":      {func(o *Options) error { return os.Remove(o.HTTP.Credentials) }, os.ErrNotExist},
		"nobody":              {func(o *Options) error { return os.WriteFile(o.HTTP.Credentials, []byte("# none\n"), 0o600) }, ErrNoCredential},
		"no program":          {func(o *Options) error { o.Hook = "/no/such/program"; return nil }, os.ErrNotExist},
		"readable for others": {func(o *Options) error { return os.Chmod(o.HTTP.Credentials, 0o644) }, ErrSecret},
		"port in use": {func(o *Options) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				t.Cleanup(func() { l.Close() })
				o.HTTP.Addr = l.Addr().String()
			}
			return err
		}, syscall.EADDRINUSE},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && (tt.want == ErrSecret || name == "port in use") {
				t.Skip("other rules")
			}
			p := serve(t, nil)
			o := p.Options
			if err := tt.change(&o); err != nil {
				t.Fatal(err)
			}
			if err := Serve(t.Context(), o); !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestParseCredentials(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want error
	}{
		"token":           {"web-1 token-sha256 " + hash("x"), nil},
		"key":             {"  * hmac-sha256 " + key + " \r\n", nil},
		"two of a client": {"a hmac-sha256 " + key + "\na token-sha256 " + hash("x"), nil},
		"empty":           {"\n# a hmac-sha256 " + key + "\n", ErrNoCredential},
		"short key":       {"a hmac-sha256 secret", ErrCredential},
		"no hash":         {"a token-sha256 " + token, ErrCredential},
		"kind":            {"a password " + key, ErrCredential},
		"fields":          {"a hmac-sha256", ErrCredential},
		"more fields":     {"a hmac-sha256 " + key + " b", ErrCredential},
		"client":          {"../a hmac-sha256 " + key, errClient},
		"capitals":        {"Web-1 hmac-sha256 " + key, errClient},
		"option":          {"-rf hmac-sha256 " + key, errClient},
		"dot":             {"web-1. hmac-sha256 " + key, errClient},
		"one of two":      {"a hmac-sha256 " + key + "\nb\n", ErrCredential},
	} {
		c, err := parseCredentials([]byte(tt.text))
		if !errors.Is(err, tt.want) || err == nil && len(c) != 1 {
			t.Errorf("%s: %v, %v", name, c, err)
		}
		if err != nil && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: quotes a secret: %v", name, err)
		}
	}
}

// What the documentation shows can be used.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/delivery-channels.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(doc), "```\n# CLIENT ")
	block, _, _ := strings.Cut(after, "```")
	if c, err := parseCredentials([]byte("# " + block)); !ok || err != nil || len(c) != 3 {
		t.Errorf("credentials: %v", err)
	}
	_, table, _ := strings.Cut(string(doc), "| status | line | means |")
	for word, status := range statuses {
		found := false
		for line := range strings.Lines(table) {
			found = found || strings.Contains(line, "`"+strings.TrimSpace(frame.Err(word))+"`") && strings.Contains(line, fmt.Sprint(status))
		}
		if !found {
			t.Errorf("no row for %d %q", status, word)
		}
	}
}

// One client may have a burst, and then waits; others do not.
func TestServeRate(t *testing.T) {
	p := serve(t, func(o *Options) { o.tune = careless })
	alice := envelope(t, 10)
	r := request{path: "/web-1/" + aliceID, header: with("X-Token", token), body: alice}
	p.expect(r, 201, frame.OK(alice))
	for range clientBurst - 1 {
		p.expect(r, 200, frame.OK(alice))
	}
	for range clientBurst { // each takes far less than the pause
		status, answer, header := p.do(r)
		if status == 429 {
			if answer != frame.Err(wordRate) || header.Get("Retry-After") == "" {
				t.Errorf("%q, %v", answer, header)
			}
			p.expect(request{path: "/web-2/" + aliceID, key: key, body: alice}, 201, frame.OK(alice))
			return
		}
	}
	t.Error("no limit")
}

// Who has the common key has one limit, under whatever names, and takes none of
// those who have their own.
func TestServeCommonRate(t *testing.T) {
	s := &server{
		credentials: watched[credentials]{value: credentials{"web-1": nil, anyClient: nil}},
		limits:      map[string]*rate.Limiter{},
		common:      rate.NewLimiter(0, 3),
	}
	for i, name := range []string{"a", "", "b", "c", "", "d"} {
		if got := s.within(name); got != (i < 3) {
			t.Errorf("%d, %q: %v", i, name, got)
		}
	}
	if !s.within("web-1") || len(s.limits) != 1 {
		t.Errorf("%d limits", len(s.limits))
	}
}

// One address has so many connections and no more; others go on.
func TestServeCrowd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have one loopback address")
	}
	p := serve(t, func(o *Options) { o.mostOfOne = 3 })
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", strings.TrimPrefix(p.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	refused := func(c net.Conn) bool {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		err := tls.Client(c, &tls.Config{RootCAs: p.pool, ServerName: "127.0.0.1"}).Handshake()
		if err != nil && (errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, new(x509.UnknownAuthorityError))) {
			t.Fatal(err)
		}
		return err != nil
	}
	idle := []net.Conn{dial("127.0.0.1"), dial("127.0.0.1"), dial("127.0.0.1")}
	if !refused(dial("127.0.0.1")) {
		t.Error("a fourth connection")
	}
	if refused(dial("127.0.0.2")) {
		t.Error("another address is refused")
	}
	idle[0].Close()
	p.wait(func() bool { return !refused(dial("127.0.0.1")) })
	if !strings.Contains(p.log.String(), "more than 3 connections of 127.0.0.1/32") {
		t.Errorf("log:\n%s", p.log)
	}
}

// A host may have all addresses of a network of 64 bits.
func TestOrigin(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8::7": "2001:db8::/64", "fe80::7%eth0": "fe80::/64",
	} {
		ip := netip.MustParseAddr(addr)
		c := &addressed{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 443))}
		if got := origin(c).String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

type addressed struct {
	net.Conn
	addr net.Addr
}

func (a *addressed) RemoteAddr() net.Addr { return a.addr }

// A client has room for so many envelopes, and what it has is confirmed still.
func TestServeLimit(t *testing.T) {
	p := serve(t, func(o *Options) { o.tune = careless })
	dir := filepath.Join(p.Dir, "web-1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	alice := envelope(t, 10)
	r := request{path: "/web-1/" + aliceID, header: with("X-Token", token), body: alice}
	p.expect(r, 201, frame.OK(alice))
	for i := range maxNew - 1 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.expect(r, 200, frame.OK(alice))
	p.expect(request{path: "/web-1/" + bobID, header: with("X-Token", token), body: alice}, 507, frame.Err(frame.WordLimit))
}

// What is confirmed was written, then named, then synchronised; many at a time
// take few turns.
func TestServeGroups(t *testing.T) {
	const clients = 60
	hold := make(chan struct{})
	var mu sync.Mutex
	var turns []int
	held := 0 // in the first turn
	var all *group
	p := serve(t, func(o *Options) {
		o.tune = func(g *group) {
			all = g
			files := g.syncFiles
			g.syncFiles = func(f []*os.File) []error {
				mu.Lock()
				if len(turns) == 0 {
					held = len(f)
				}
				mu.Unlock()
				<-hold
				for _, one := range f {
					if fi, err := one.Stat(); err != nil || fi.Size() == 0 {
						t.Errorf("nothing in the file yet: %v", err)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				turns = append(turns, len(f))
				return files(f)
			}
			dirs := g.syncDirs
			g.syncDirs = func(d []string) []error {
				for _, dir := range d {
					entries, err := os.ReadDir(dir)
					if err != nil || len(entries) == 0 {
						t.Errorf("no name in %s yet: %v", dir, err)
					}
				}
				return dirs(d)
			}
		}
	})
	alice := envelope(t, 100)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			path := fmt.Sprintf("/c%d/%s", i%10, "abcdefghijklmnopqrstuv"+digits32(i))
			status, answer, _ := p.do(request{path: path, key: common, body: alice})
			if status != 201 || answer != frame.OK(alice) {
				t.Errorf("%s: %d %q", path, status, answer)
			}
		})
	}
	// All but the ones of the first turn wait for it.
	p.wait(func() bool {
		mu.Lock()
		n := held
		mu.Unlock()
		all.mu.Lock()
		defer all.mu.Unlock()
		return n+len(all.waiting) == clients
	})
	close(hold)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(turns) > 2 {
		t.Errorf("turns of %v", turns)
	}
}

// Where the disk does not take one, nobody is told that it did.
func TestServeStoreFails(t *testing.T) {
	fail := func(change func(g *group)) *panel {
		return serve(t, func(o *Options) { o.tune = change })
	}
	alice := envelope(t, 100)
	r := request{path: "/web-1/" + aliceID, header: with("X-Token", token), body: alice}
	p := fail(func(g *group) {
		g.syncFiles = func(f []*os.File) []error { return slices.Repeat([]error{syscall.EIO}, len(f)) }
	})
	p.expect(r, 500, frame.Err(frame.WordStore))
	if got, _ := os.ReadDir(filepath.Join(p.Dir, "web-1")); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	for _, dir := range []string{"in", "web-1"} {
		p = fail(func(g *group) {
			g.syncDirs = func(d []string) []error {
				errs := make([]error, len(d))
				for i, name := range d {
					if filepath.Base(name) == dir {
						errs[i] = syscall.EIO
					}
				}
				return errs
			}
		})
		p.expect(r, 500, frame.Err(frame.WordStore))
		p.expect(r, 500, frame.Err(frame.WordStore))
	}
	if got := p.files(); !slices.Equal(got, []string{"web-1"}) {
		t.Errorf("left %q", got)
	}
}

// Many send the same at once, and others something else under its name.
func TestServeRace(t *testing.T) {
	p := serve(t, nil)
	alice, other := envelope(t, 100), envelope(t, 100)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]map[int]int{}
	for i := range 20 {
		wg.Go(func() {
			body := alice
			if i%2 == 1 {
				body = other
			}
			status, _, _ := p.do(request{path: "/c/" + aliceID, key: common, body: body})
			mu.Lock()
			defer mu.Unlock()
			if seen[string(body)] == nil {
				seen[string(body)] = map[int]int{}
			}
			seen[string(body)][status]++
		})
	}
	wg.Wait()
	stored := string(p.stored("c/" + aliceID + ".age"))
	for body, statuses := range seen {
		if body == stored && (statuses[201] != 1 || statuses[200] != 9) || body != stored && statuses[412] != 10 {
			t.Errorf("statuses %v", seen)
		}
	}
}

// A body that stops in the middle leaves nothing.
func TestServeCut(t *testing.T) {
	p := serve(t, nil)
	alice := envelope(t, 1000)
	for _, at := range []int{0, len(alice) / 4, len(alice) / 2, len(alice) - 1} {
		c, err := tls.Dial("tcp", strings.TrimPrefix(p.url, "https://"), &tls.Config{RootCAs: p.pool})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "PUT /web-1/%s HTTP/1.1\r\nHost: x\r\nX-Token: %s\r\nContent-Length: %d\r\n\r\n", aliceID, token, len(alice))
		c.Write(alice[:at])
		c.Close()
	}
	p.wait(func() bool { return strings.Count(p.log.String(), "refused: body") == 4 })
	if got := p.files(); len(got) != 0 {
		t.Errorf("files %q", got)
	}
}

func TestServeOnce(t *testing.T) {
	p := serve(t, func(o *Options) { o.Once = 2 })
	alice := envelope(t, 100)
	for _, path := range []string{"/web-1/" + aliceID, "/web-1/" + aliceID, "/web-1/" + bobID} {
		if status, answer, _ := p.do(request{path: path, header: with("X-Token", token), body: alice}); answer != frame.OK(alice) {
			t.Fatalf("%s: %d %q", path, status, answer)
		}
	}
	p.finish()
}

// What was begun is answered before the server ends.
func TestServeStops(t *testing.T) {
	started, hold := make(chan struct{}, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := serve(t, func(o *Options) {
		o.tune = func(g *group) {
			files := g.syncFiles
			g.syncFiles = func(f []*os.File) []error {
				started <- struct{}{}
				<-hold
				return files(f)
			}
		}
	})
	// A second one that the test can stop.
	o := p.Options
	log := &syncBuffer{}
	o.Log, o.Dir = log, filepath.Join(t.TempDir(), "in")
	end := make(chan error, 1)
	go func() { end <- Serve(ctx, o) }()
	p.wait(func() bool { return strings.Contains(log.String(), "listening") })
	_, after, _ := strings.Cut(log.String(), "listening on ")
	p.url = strings.TrimSpace(after)
	alice := envelope(t, 100)
	answered := make(chan string)
	go func() {
		_, answer, _ := p.do(request{path: "/web-1/" + aliceID, header: with("X-Token", token), body: alice})
		answered <- answer
	}()
	<-started
	cancel()
	p.wait(func() bool { // closed to others
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "https://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(hold)
	if got := <-answered; got != frame.OK(alice) {
		t.Errorf("answered %q", got)
	}
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// Whatever strangers do, the log stays small.
func TestServeLogBounded(t *testing.T) {
	p := serve(t, nil)
	for range 3 * maxComplaint {
		p.do(request{path: "/web-1/" + aliceID})
	}
	if n := strings.Count(p.log.String(), "\n"); n > maxComplaint+50 {
		t.Errorf("%d lines logged", n)
	}
}

func TestHook(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "hook")
	out := filepath.Join(dir, "out")
	// One write a run: the hooks of two envelopes run side by side.
	text := "#!/bin/sh\nprintf '%s|%s|%s|%s|%s|\\n' \"$@\" \"$TOTP_FILE\" \"$TOTP_CLIENT\" \"$TOTP_USER\" \"$TOTP_ID\" >>" + out + "\ntest \"$TOTP_USER\" = alice\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	p := serve(t, func(o *Options) { o.Hook, o.Once = script, 2 })
	alice := envelope(t, 100)
	p.expect(request{path: "/web-1/" + aliceID, header: with("X-Token", token, "X-Totp-User", "alice"), body: alice}, 201, frame.OK(alice))
	p.expect(request{path: "/web-1/" + aliceID, header: with("X-Token", token, "X-Totp-User", "alice"), body: alice}, 200, frame.OK(alice))
	p.expect(request{path: "/web-1/" + bobID, header: with("X-Token", token), body: alice}, 201, frame.OK(alice))
	p.finish() // waits for the hooks
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	slices.Sort(lines)
	one, two := filepath.Join(p.Dir, "web-1", "alice-"+aliceID+".age"), filepath.Join(p.Dir, "web-1", bobID+".age")
	want := []string{
		one + "|" + one + "|web-1|alice|" + aliceID + "|",
		two + "|" + two + "|web-1||" + bobID + "|",
	}
	slices.Sort(want)
	if !slices.Equal(lines, want) {
		t.Errorf("ran with\n%q\nwant\n%q", lines, want)
	}
	if !strings.Contains(p.log.String(), bobID+".age: the hook has failed") {
		t.Errorf("log:\n%s", p.log)
	}
}

// With --dir . a client's name is what a file's path begins with.
func TestHookTakesNoOption(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "hook")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf '%s|' \"$@\" \"$TOTP_FILE\" >out\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	h, err := newHooks(script, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	h.arrived(arrival{file: filepath.Join("-x", aliceID+".age"), client: "-x", id: aliceID})
	h.wait()
	got, err := os.ReadFile("out")
	if file, _ := filepath.Abs(filepath.Join("-x", aliceID+".age")); err != nil || string(got) != file+"|"+file+"|" {
		t.Errorf("ran with %q, %v", got, err)
	}
}

// The clients that share a credential cannot fill the disk, whatever they call
// themselves, and do not take the room of the others.
func TestServeQuota(t *testing.T) {
	body := envelope(t, 1000)
	p := serve(t, func(o *Options) { o.HTTP.Quota = 4*blockSize - 1 }) // a file of a block, one with a directory
	names := []string{"/a/" + aliceID, "/" + aliceID, "/b/" + aliceID, "/" + bobID}
	for i, name := range names {
		status, answer := 201, frame.OK(body)
		if i > 1 {
			status, answer = 507, frame.Err(frame.WordLimit)
		}
		p.expect(request{path: name, key: common, body: body}, status, answer)
	}
	p.expect(request{path: names[0], key: common, body: body}, 200, frame.OK(body))
	p.expect(request{path: "/web-1/" + aliceID, header: with("X-Token", token), body: body}, 201, frame.OK(body))
}

// Clients that share a credential cannot take all that is stored at the same time.
func TestSharedSlots(t *testing.T) {
	dir, body := t.TempDir(), envelope(t, 1000)
	s := &server{
		receiver:    &receiver{Options: Options{Dir: dir}, store: newStore(dir, writeAll)},
		slots:       make(chan struct{}, 2),
		shared:      make(chan struct{}, 1),
		limits:      map[string]*rate.Limiter{},
		common:      rate.NewLimiter(rate.Inf, 1),
		quota:       quota{dir: dir, limit: DefaultQuota, now: time.Now, logf: t.Logf},
		credentials: watched[credentials]{value: credentials{"web-1": nil, anyClient: nil}, logf: t.Logf},
	}
	s.quota.own = s.hasLine
	keep := func(client string) (word frame.Word) {
		e := arrival{client: client, user: "alice", id: aliceID}
		e.file = filepath.Join(dir, filepath.FromSlash(e.name()))
		_, word = s.keep(e, body)
		return word
	}
	s.shared <- struct{}{} // a request of another client is being stored
	s.slots <- struct{}{}
	for client, want := range map[string]frame.Word{"web-1": "", "web-2": wordBusy, "": wordBusy} {
		if word := keep(client); word != want {
			t.Errorf("client %q: %q, want %q", client, word, want)
		}
	}
	<-s.shared
	if word := keep("web-2"); word != "" || len(s.shared) != 0 || len(s.slots) != 1 {
		t.Errorf("%q, with %d and %d slots taken", word, len(s.shared), len(s.slots))
	}
}

// What is shorter than an envelope is refused: it costs its sender nothing.
func TestServeShort(t *testing.T) {
	p := serve(t, nil)
	mac := "--- " + strings.Repeat("A", 43) + "\n"
	whole, err := seal.Dearmor(envelope(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	many := "age-encryption.org/v1\n" + strings.Repeat("-> a\n\n", seal.MaxRecipients+1) + mac + strings.Repeat("x", 32)
	for name, body := range map[string][]byte{
		"no payload":       []byte("age-encryption.org/v1\n-> a\n\n" + mac),
		"an empty stanza":  []byte("age-encryption.org/v1\n-> a\n\n" + mac + strings.Repeat("x", 32)),
		"a byte too short": whole[:len(whole)-1],
		"many recipients":  []byte(many),
	} {
		armored, err := seal.Armor(body)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range [][]byte{body, armored} {
			t.Log(name)
			p.expect(request{path: "/" + aliceID, key: common, body: body}, 400, frame.Err(frame.WordAge))
		}
	}
	p.expect(request{path: "/" + aliceID, key: common, body: whole}, 201, frame.OK(whole))
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte("# a comment\nweb-1 token-sha256 " + hash("x") + "\n* hmac-sha256 " + common + "\n"))
	f.Add([]byte("con hmac-sha256 " + key))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseCredentials(text)
		if err != nil {
			for _, word := range strings.Fields(string(text)) {
				if len(word) >= minKey && strings.Contains(err.Error(), word) {
					t.Errorf("the error repeats %q", word)
				}
			}
			return
		}
		for client, lines := range c {
			if client != anyClient && !isClient(client) {
				t.Errorf("client %q", client)
			}
			for _, l := range lines {
				if l.key != nil && len(l.key) < minKey {
					t.Errorf("%q: a key of %d characters", client, len(l.key))
				}
			}
		}
	})
}

// Whatever a client without a credential sends, nothing is stored, and nothing of it
// reaches the log unless it is printable.
func FuzzRequest(f *testing.F) {
	f.Add("PUT", "/web-1/"+aliceID, "X-Token", "x", []byte("age-encryption.org/v1\n"))
	f.Add("POST", "/../"+aliceID+"?user=alice", frame.SignatureHeader, "v1="+hash(""), []byte{})
	f.Add("PUT", "/"+aliceID+"?user=%1b%5b2J", frame.UserHeader, "a\x1b[2Jb", []byte{})
	f.Fuzz(func(t *testing.T, method, target, name, value string, body []byte) {
		req, err := http.NewRequest(method, "https://receive.example", bytes.NewReader(body))
		if err != nil || name == "" {
			return
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		req.URL, req.RequestURI, req.RemoteAddr = u, target, "192.0.2.1:1"
		req.Header.Set(name, value)
		log := &syncBuffer{}
		dir := t.TempDir()
		s := &server{
			receiver:    &receiver{Options: Options{Dir: dir, Log: log}, store: newStore(dir, writeAll), hooks: &hooks{}, done: func() {}, names: map[string]bool{}},
			slots:       make(chan struct{}, 1),
			shared:      make(chan struct{}, 1),
			limits:      map[string]*rate.Limiter{},
			common:      rate.NewLimiter(rate.Inf, 1),
			complaints:  rate.NewLimiter(rate.Inf, 1),
			quota:       quota{dir: dir, limit: DefaultQuota, now: time.Now, logf: f.Logf},
			credentials: watched[credentials]{value: credentials{"web-1": {{key: []byte(key)}}, anyClient: {{key: []byte(common)}}}, logf: func(string, ...any) {}},
		}
		s.quota.own = s.hasLine
		w := httptest.NewRecorder()
		s.ServeHTTP(w, req)
		if w.Code < 400 {
			t.Errorf("answer %d", w.Code)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("stored %v, %v", entries, err)
		}
		for _, r := range log.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%U in the log: %q", r, log)
			}
		}
	})
}
