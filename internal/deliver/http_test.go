// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func TestHTTPRequest(t *testing.T) {
	real := Item{Meta: meta(aliceID, "alice"), Sealed: realEnvelope(t)}
	real.InstanceID, real.Hostname = `i/1 "é&`, ""
	text, err := seal.Armor(real.Sealed)
	must(t, err)
	for _, tt := range []struct {
		name   string
		change func(*policy.Channel)
		method string
		uri    string
		header map[string]string
		body   func(t *testing.T, got []byte)
	}{
		{"raw", nil, "PUT", "/secretpath/" + aliceID + "?sig=secretquery", map[string]string{"Content-Type": "application/vnd.age", "X-Token": "secretheader", "X-Signature": ""},
			func(t *testing.T, got []byte) {
				if !bytes.Equal(got, real.Sealed) {
					t.Error("another envelope")
				}
			}},
		{"armored", func(c *policy.Channel) { c.Method, c.Body = "POST", policy.BodyArmored }, "POST", "/secretpath/" + aliceID + "?sig=secretquery", map[string]string{"Content-Type": "application/vnd.age"},
			func(t *testing.T, got []byte) {
				if !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(text)) {
					t.Errorf("got %.80q", got)
				}
			}},
		{"places", func(c *policy.Channel) {
			c.URL = "https://" + serverName + "/{id}/{user}/{instance_id}/{hostname}?i={instance_id}"
			c.Headers = map[string]string{"X-Of": "{user}@{instance_id}", "content-type": "text/x"}
		}, "PUT", "/" + aliceID + "/alice/i%2F1%20%22%C3%A9&/none?i=i%2F1+%22%C3%A9%26", map[string]string{"X-Of": "alice@i%2F1%20%22%C3%A9&", "Content-Type": "text/x"}, nil},
		{"json", func(c *policy.Channel) { c.Body = policy.BodyJSON }, "PUT", "/secretpath/" + aliceID + "?sig=secretquery", map[string]string{"Content-Type": "application/json"},
			func(t *testing.T, got []byte) {
				want := map[string]string{"id": aliceID, "user": "alice", "instance_id": real.InstanceID, "hostname": "none", "envelope": string(text)}
				var is map[string]string
				if err := json.Unmarshal(got, &is); err != nil {
					t.Fatal(err)
				}
				is["envelope"], want["envelope"] = strings.TrimSpace(is["envelope"]), strings.TrimSpace(want["envelope"])
				if !maps.Equal(is, want) {
					t.Errorf("got %q", is)
				}
			}},
		{"template", func(c *policy.Channel) {
			c.Body, c.Template = policy.BodyJSON, `{"data":{"card":"{base64}","of":"{user}"},"options":{"cas":0}}`
		}, "PUT", "/secretpath/" + aliceID + "?sig=secretquery", nil,
			func(t *testing.T, got []byte) {
				if want := `{"data":{"card":"` + base64.StdEncoding.EncodeToString(real.Sealed) + `","of":"alice"},"options":{"cas":0}}`; string(got) != want {
					t.Errorf("got %s", got)
				}
			}},
		{"signed", func(c *policy.Channel) { c.HMACKey = "0123456789abcdef" }, "PUT", "/secretpath/" + aliceID + "?sig=secretquery", map[string]string{
			"X-Signature":         "sha256=" + signature("0123456789abcdef", real.Sealed),
			frame.UserHeader:      "alice",
			frame.SignatureHeader: frame.Sign([]byte("0123456789abcdef"), "PUT", "/secretpath/"+aliceID+"?sig=secretquery", "alice", real.Sealed),
		}, nil},
		{"signed, with the user's header of the policy", func(c *policy.Channel) {
			c.HMACKey, c.Headers = "0123456789abcdef", map[string]string{frame.UserHeader: "of-{user}"}
		}, "PUT", "/secretpath/" + aliceID + "?sig=secretquery", map[string]string{
			frame.UserHeader:      "of-alice",
			frame.SignatureHeader: frame.Sign([]byte("0123456789abcdef"), "PUT", "/secretpath/"+aliceID+"?sig=secretquery", "of-alice", real.Sealed),
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPanel(t)
			if tt.change != nil {
				tt.change(&p.c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			must(t, p.channel().Send(ctx, real))
			got := p.requests()
			if len(got) != 1 || got[0].method != tt.method || got[0].uri != tt.uri || got[0].header.Get("User-Agent") != "totp-agent" {
				t.Fatalf("got %+v", got)
			}
			for k, v := range tt.header {
				if h := got[0].header.Get(k); h != v {
					t.Errorf("%s: got %q, want %q", k, h, v)
				}
			}
			if tt.body != nil {
				tt.body(t, got[0].body)
			}
		})
	}
}

func signature(key string, body []byte) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write(body)
	return hex.EncodeToString(m.Sum(nil))
}

// What the answer's code means.
func TestHTTPAnswers(t *testing.T) {
	const xml = "application/xml"
	for _, tt := range []struct {
		name    string
		success []int
		code    int
		header  map[string]string
		body    string
		want    []error
		unsent  bool
		after   time.Duration
	}{
		{"200", nil, 200, nil, "", nil, false, 0},
		{"204", nil, 204, nil, "", nil, false, 0},
		{"202, where it is none of success", []int{200, 201}, 202, nil, "", []error{ErrStatus}, false, 0},
		{"201, where it is one", []int{200, 201}, 201, nil, "", nil, false, 0},
		{"300", nil, 300, nil, "", []error{ErrStatus}, true, 0},
		{"400", nil, 400, nil, "", []error{ErrStatus}, true, 0},
		{"401", nil, 401, nil, "", []error{ErrStatus}, true, 0},
		{"404", nil, 404, nil, "", []error{ErrStatus}, true, 0},
		{"408", nil, 408, nil, "", []error{ErrStatus}, false, 0},
		{"429", nil, 429, map[string]string{"Retry-After": "120"}, "", []error{ErrStatus}, true, 2 * time.Minute},
		{"429 for ever", nil, 429, map[string]string{"Retry-After": "99999999999"}, "", []error{ErrStatus}, true, longestWish},
		{"429 and nonsense", nil, 429, map[string]string{"Retry-After": "soon"}, "", []error{ErrStatus}, true, 0},
		{"429 in the past", nil, 429, map[string]string{"Retry-After": "-5"}, "", []error{ErrStatus}, true, 0},
		{"429 with a date", nil, 429, map[string]string{"Retry-After": "Fri, 02 Jan 2026 04:04:05 GMT", "Date": "Fri, 02 Jan 2026 03:04:05 GMT"}, "", []error{ErrStatus}, true, time.Hour},
		{"500", nil, 500, nil, "", []error{ErrStatus}, false, 0},
		{"503", nil, 503, map[string]string{"Retry-After": "60"}, "", []error{ErrStatus}, false, time.Minute},
		{"409", nil, 409, nil, "", []error{ErrStatus}, true, 0},
		{"412", nil, 412, nil, "", []error{ErrTaken}, true, 0},
		{"412 of S3", nil, 412, map[string]string{"Content-Type": xml}, "<Error><Code>PreconditionFailed</Code></Error>", []error{ErrTaken}, true, 0},
		{"403", nil, 403, nil, "", []error{ErrStatus}, true, 0},
		{"403 with a pause", nil, 403, map[string]string{"Retry-After": "60"}, "", []error{ErrStatus}, true, time.Minute},
		{"403 of a firewall", nil, 403, map[string]string{"Content-Type": "text/html"}, "<h1>blocked</h1><Code>BlobAlreadyExists</Code>", []error{ErrStatus}, true, 0},
		{"403 of Vault", nil, 403, map[string]string{"Content-Type": "application/json"}, `{"errors":["permission denied"]}`, []error{ErrStatus}, true, 0},
		{"403 of S3, a clock", nil, 403, map[string]string{"Content-Type": xml}, "<?xml?><Error><Code>RequestTimeTooSkewed</Code><Message>secretpath</Message></Error>", []error{ErrClock}, true, 0},
		{"403 of Azure, there already", nil, 403, map[string]string{"X-Ms-Error-Code": "UnauthorizedBlobOverwrite"}, "", []error{ErrTaken}, true, 0},
		{"409 of Azure, there already", nil, 409, map[string]string{"X-Ms-Error-Code": "BlobAlreadyExists"}, "", []error{ErrTaken}, true, 0},
		{"409 of Alibaba, there already", nil, 409, map[string]string{"Content-Type": xml}, "<Error><Code>FileAlreadyExists</Code></Error>", []error{ErrTaken}, true, 0},
		{"409 of Azure, a lease", nil, 409, map[string]string{"X-Ms-Error-Code": "LeaseAlreadyPresent"}, "", []error{ErrStatus}, true, 0},
		{"403 that tells its own stories", nil, 403, map[string]string{"Content-Type": xml}, "<Code>secretpath/secretquery</Code>", []error{ErrStatus}, true, 0},
		{"404 with such a name", nil, 404, map[string]string{"X-Ms-Error-Code": "BlobAlreadyExists"}, "", []error{ErrStatus}, true, 0},
		{"redirect elsewhere", nil, 307, map[string]string{"Location": "https://other.example/x"}, "", []error{ErrElsewhere}, true, 0},
		{"redirect to another port", nil, 308, map[string]string{"Location": "https://" + serverName + ":8443/x"}, "", []error{ErrElsewhere}, true, 0},
		{"redirect to no TLS", nil, 307, map[string]string{"Location": "http://" + serverName + "/x"}, "", []error{ErrElsewhere}, true, 0},
		{"redirect without the envelope", nil, 303, map[string]string{"Location": "/x"}, "", []error{errNoEnvelope}, true, 0},
		{"redirect as of old", nil, 302, map[string]string{"Location": "/x"}, "", []error{errNoEnvelope}, true, 0},
		{"redirect in a circle", nil, 307, map[string]string{"Location": "/x"}, "", []error{errLoop}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPanel(t)
			p.c.Success = tt.success
			p.answer(tt.code, tt.header, tt.body)
			err := p.send()
			if tt.want == nil {
				must(t, err)
				return
			}
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			if maySent(err) == tt.unsent {
				t.Errorf("may have been sent: %v", maySent(err))
			}
			if got := wish(err); got != tt.after {
				t.Errorf("try again after %v, want %v", got, tt.after)
			}
			noSecret(t, err.Error())
		})
	}
}

// noSecret: what a channel knows and nobody may read is not in a text.
func noSecret(t *testing.T, text string) {
	t.Helper()
	for _, s := range []string{"secret", aliceID, "sig="} {
		if strings.Contains(text, s) {
			t.Errorf("%q holds %q", text, s)
		}
	}
	if !strings.Contains(text, serverName) {
		t.Errorf("%q does not name the server", text)
	}
}

// A redirect on the same host is followed, with all that belongs to the request.
func TestHTTPRedirect(t *testing.T) {
	p := newPanel(t)
	p.then(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/elsewhere" {
			http.Redirect(w, r, "https://"+strings.ToUpper(serverName)+":443/elsewhere", http.StatusTemporaryRedirect)
		}
	})
	must(t, p.send())
	got := p.requests()
	if len(got) != 2 || got[1].uri != "/elsewhere" || got[1].method != "PUT" || !bytes.Equal(got[1].body, item().Sealed) || got[1].header.Get("X-Token") != "secretheader" {
		t.Errorf("got %+v", got)
	}
}

func TestHTTPClientCertificate(t *testing.T) {
	p := newPanel(t)
	clients := newAuthority(t)
	config := p.ca.tls(t, serverName, nil)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, clients.pool()
	// In TLS 1.3 the client has sent its request when the server refuses, and
	// may see the connection end before it has read why.
	p.start(config.Clone())
	if err := p.send(); !errors.Is(err, ErrHandshake) && !errors.Is(err, ErrCut) || !maySent(err) {
		t.Errorf("without one: %v", err)
	}
	old := config.Clone()
	old.MaxVersion = tls.VersionTLS12
	p.start(old)
	if err := p.send(); !errors.Is(err, ErrHandshake) || maySent(err) {
		t.Errorf("without one: %v", err)
	}
	p.start(config)
	cert, key := clients.issue(t, "web-1", nil)
	p.c.ClientCert, p.c.ClientKey = "/etc/c.pem", "/etc/k.pem"
	if err := p.send(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	targettest.Put(t, p.tg, p.c.ClientCert, cert, 0o644)
	targettest.Put(t, p.tg, p.c.ClientKey, key, 0o640)
	if err := p.send(); !errors.Is(err, errKeyOpen) || maySent(err) {
		t.Errorf("a key for everybody: %v", err)
	}
	targettest.Put(t, p.tg, p.c.ClientKey, key, 0o600)
	if err := os.Lchown(filepath.Join(p.tg.Root(), p.c.ClientKey), 1000, 0); err == nil { // root alone can
		if err := p.send(); !errors.Is(err, errKeyOpen) || maySent(err) {
			t.Errorf("a key of somebody else's: %v", err)
		}
	} else if os.Getenv("CI") == "true" {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(p.tg.Root(), p.c.ClientKey)))
	must(t, os.Mkdir(filepath.Join(p.tg.Root(), p.c.ClientKey), 0o700))
	if err := p.send(); !errors.Is(err, errKeyOpen) {
		t.Errorf("a directory: %v", err)
	}
	must(t, os.Remove(filepath.Join(p.tg.Root(), p.c.ClientKey)))
	targettest.Put(t, p.tg, p.c.ClientKey, "no key", 0o600)
	if err := p.send(); !errors.Is(err, errKeyPair) || strings.Contains(err.Error(), "no key") {
		t.Errorf("no key: %v", err)
	}
	targettest.Put(t, p.tg, p.c.ClientKey, key, 0o600)
	must(t, p.send())
	if n := len(p.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// What a server that looks at the client's certificate late has done with the request
// nobody knows: that there is an envelope afterwards is no tampering.
func TestHTTPLateAlert(t *testing.T) {
	p := newPanel(t)
	m := newMachine(t, policy.RequireAny)
	m.e.Jitter = "0s"
	ready(t, m.box, aliceID, "alice")
	pass := func() Attempt {
		o := m.options()
		o.routes = []route{{Channel: p.channel(), deadline: time.Minute, network: true}}
		if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
			t.Fatal(err)
		}
		m.clock = m.clock.Add(2 * longestPause)
		return m.attempt(aliceID, p.channel().Name())
	}
	config := p.ca.tls(t, serverName, nil)
	config.ClientAuth = tls.RequireAnyClientCert
	p.start(config)
	if a := pass(); a.State != Failed || !a.Unclear {
		t.Errorf("refused after the handshake: %+v", a)
	}
	p.start(p.ca.tls(t, serverName, nil))
	p.answer(http.StatusPreconditionFailed, nil, "")
	if a := pass(); a.State != Unconfirmed {
		t.Errorf("and then taken: %+v", a)
	}
}

// A redirect that leads nowhere: the first server says that it has not got the
// envelope, and there is no second one.
func TestHTTPRedirectToNobody(t *testing.T) {
	p := newPanel(t)
	p.then(func(w http.ResponseWriter, r *http.Request) {
		p.to("127.0.0.1:1")
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	if err := p.send(); !errors.Is(err, ErrRefused) || maySent(err) {
		t.Errorf("got %v, may be sent %v", err, maySent(err))
	}
}

// Until there is a TLS connection nothing of the envelope can have left.
func TestHTTPBeforeTLS(t *testing.T) {
	p := newPanel(t)
	old := p.ca.tls(t, serverName, nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	p.start(old)
	if err := p.send(); !errors.Is(err, ErrHandshake) || maySent(err) {
		t.Errorf("TLS 1.1: %v", err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	p.to(l.Addr().String()) // connected by the kernel, and nobody speaks
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.channel().Send(ctx, item()); !errors.Is(err, ErrTimeout) || maySent(err) {
		t.Errorf("silence: %v", err)
	}
	if n := len(p.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestHTTPCAFile(t *testing.T) {
	p := newPanel(t)
	targettest.Put(t, p.tg, caFile, "no certificate", 0o644)
	if err := p.send(); !errors.Is(err, errNoCertificate) || maySent(err) {
		t.Errorf("got %v", err)
	}
	p.c.CAFile = "/etc/none.pem"
	if err := p.send(); !errors.Is(err, fs.ErrNotExist) || maySent(err) {
		t.Errorf("got %v", err)
	}
}

// A store that takes an object once: an answer that was lost leaves the envelope
// there, and the next try cannot know; what somebody else has put there it can.
func TestHTTPWriteOnce(t *testing.T) {
	for name, want := range map[string]string{"lost answer": Unconfirmed, "somebody else": Tampered, "neither": Delivered} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			full := name == "somebody else"
			p.then(func(w http.ResponseWriter, _ *http.Request) {
				if full {
					w.WriteHeader(http.StatusPreconditionFailed)
					return
				}
				full = true
				if name == "lost answer" {
					c, _, err := w.(http.Hijacker).Hijack()
					must(t, err)
					io.WriteString(c, "HTTP/1.1 200 OK\r\n")
					c.Close()
				}
			})
			m := newMachine(t, policy.RequireAny)
			m.e.Jitter = "0s"
			ready(t, m.box, aliceID, "alice")
			o := m.options()
			o.routes = []route{{Channel: p.channel(), deadline: time.Minute, network: true}}
			for range 3 {
				if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
					t.Fatal(err)
				}
				m.clock = m.clock.Add(2 * longestPause)
			}
			a := m.attempt(aliceID, p.channel().Name())
			if a.State != want {
				t.Errorf("%+v, want %s", a, want)
			}
			if n := len(p.requests()); n != map[string]int{Unconfirmed: 2, Tampered: 3, Delivered: 1}[want] {
				t.Errorf("%d requests", n)
			}
			if strings.Contains(m.log.String(), "secret") {
				t.Errorf("in the log:\n%s", m.log.String())
			}
		})
	}
}

// An answer that passes never ends the tries: not at first, where it is not
// tampering, and not after an attempt that was cut.
func TestHTTPPassingRefusals(t *testing.T) {
	for _, refusal := range []struct {
		code    int
		service string
	}{
		{409, ""}, {409, "ConditionalRequestConflict"}, {409, "OperationAborted"}, {409, "BucketAlreadyExists"},
		{403, ""}, {403, "AccessDenied"}, {403, "SignatureDoesNotMatch"}, {403, "RequestTimeTooSkewed"}, {403, "ServerBusy"},
		{400, ""}, {404, "NoSuchBucket"}, {429, ""}, {503, "SlowDown"},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s, cut before: %v", refusal.code, refusal.service, cut), func(t *testing.T) {
				p := newPanel(t)
				requests := 0
				p.then(func(w http.ResponseWriter, _ *http.Request) {
					requests++
					switch {
					case cut && requests == 1:
						c, _, err := w.(http.Hijacker).Hijack()
						must(t, err)
						c.Close()
					case requests <= 3:
						w.Header().Set("Content-Type", "application/xml")
						w.WriteHeader(refusal.code)
						fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", refusal.service)
					}
				})
				m := newMachine(t, policy.RequireAny)
				m.e.Jitter = "0s"
				ready(t, m.box, aliceID, "alice")
				o := m.options()
				o.routes = []route{{Channel: p.channel(), deadline: time.Minute, network: true}}
				for i, want := range []string{Failed, Failed, Failed, Delivered} {
					if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
						t.Fatal(err)
					}
					if a := m.attempt(aliceID, p.channel().Name()); a.State != want {
						t.Fatalf("after %d passes: %+v, want %s", i+1, a, want)
					}
					m.clock = m.clock.Add(2 * longestPause)
				}
			})
		}
	}
}

// Nothing of the channel's secrets is printed, whatever prints it.
func TestHTTPName(t *testing.T) {
	p := newPanel(t)
	p.c.URL = "https://secretuser:secretpw@Panel.Example:443/secret/{id}?secret"
	p.c.User = "bob"
	if got := p.channel().Name(); got != "http:panel.example for bob" {
		t.Errorf("name %q", got)
	}
	if got := p.channel().place(); got != "https://Panel.Example:443/…" {
		t.Errorf("place %q", got)
	}
	p.c.URL = "https://panel.example:8443/{id}"
	p.c.User = ""
	if got := p.channel().Name(); got != "http:panel.example:8443" {
		t.Errorf("name %q", got)
	}
}

func TestCheckHTTP(t *testing.T) {
	for _, u := range []string{"", "http://h/{id}", "https:///{id}", "https://:443/{id}", "::", "h/{id}"} {
		if err := checkHTTP(policy.Channel{URL: u}); !errors.Is(err, errURL) || u != "" && strings.Contains(err.Error(), u) {
			t.Errorf("%q: %v", u, err)
		}
	}
	if !slices.IsSorted(occupied) {
		t.Error("occupied is not sorted")
	}
}

// An answer is never more than a code, and a name of letters, in an error: it may
// repeat the URL, which is a capability, or steer a terminal.
func FuzzAnswer(f *testing.F) {
	f.Add(403, "application/xml", "<Error><Code>AccessDenied</Code></Error>", "", "")
	f.Add(409, "text/xml", "<Code>\x1b[2J</Code>", "BlobAlreadyExists", "Wed, 21 Oct 2026 07:28:00 GMT")
	f.Add(503, "", "", "", "-9999999999999999999")
	f.Fuzz(func(t *testing.T, code int, kind, body, azure, retry string) {
		resp := &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		resp.Header.Set("Content-Type", kind)
		resp.Header.Set("X-Ms-Error-Code", azure)
		resp.Header.Set("Retry-After", retry)
		err := (&web{now: func() time.Time { return time.Unix(1e9, 0) }}).judge(resp)
		if err == nil {
			if code < 200 || code > 299 {
				t.Errorf("%d is taken for a success", code)
			}
			return
		}
		if text := err.Error(); len(text) > 400 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("error %q", text)
		}
	})
}
