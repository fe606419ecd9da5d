// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The errors of the channels http and openstack. None repeats what the server said, but for
// the code of the answer and a storage service's own name of the error: an
// answer may repeat the URL, which is a capability.
var (
	ErrDNS         = errors.New("no address found for that name; look at the URL and at this machine's DNS")
	ErrRefused     = errors.New("connection refused")
	ErrUnreachable = errors.New("no route to that host")
	ErrTimeout     = errors.New("no answer in time")
	ErrCut         = errors.New("the connection was cut")
	ErrCertName    = errors.New("the server's certificate is for another name")
	ErrCertTime    = errors.New("the server's certificate has expired or is not valid yet")
	ErrCertCA      = errors.New("the server's certificate is signed by nobody that this machine trusts; name the CA's file as ca_file, or install ca-certificates")
	ErrHandshake   = errors.New("the server does not agree to a TLS connection; it must speak TLS 1.2 or newer, and may want a client certificate")
	ErrStatus      = errors.New("that is no word of having the envelope")
	ErrNotHTTP     = errors.New("what the server answered is no HTTP")
	ErrClock       = errors.New("this machine's clock is wrong by too much for a signed request")
	ErrElsewhere   = errors.New("the server redirects to another host, which this channel does not follow; write the URL of the other one")

	errRequest       = errors.New("no request can be made of the channel's settings")
	errNoEnvelope    = errors.New("the server redirects in a way that leaves the envelope behind; write the URL that it redirects to")
	errLoop          = errors.New("the server redirects without end")
	errNoCertificate = errors.New("no certificate in it")
	errKeyOpen       = errors.New("others than root can read or change it; make it a file of root's with mode 0600")
	errKeyPair       = errors.New("not a certificate and its key in PEM")
)

// failure is what a request without an answer failed of, in our own words.
func failure(err error, now time.Time) error {
	var (
		dns      *net.DNSError
		name     x509.HostnameError
		ca       x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		alert    *net.OpError
		record   tls.RecordHeaderError
		redirect *url.Error
	)
	switch {
	case errors.Is(err, ErrElsewhere), errors.Is(err, errNoEnvelope), errors.Is(err, errLoop):
		errors.As(err, &redirect)
		return redirect.Err
	case errors.As(err, &dns):
		return ErrDNS
	case errors.As(err, &name):
		return ErrCertName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w; this machine's clock says %s", ErrCertTime, now.UTC().Format(time.RFC3339))
	case errors.As(err, &ca), errors.As(err, &invalid):
		return ErrCertCA
	case errors.As(err, &alert) && alert.Op == remoteError, errors.As(err, &record):
		return ErrHandshake
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return ErrTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return ErrUnreachable
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return ErrCut
	}
	return ErrNotHTTP
}

// do makes a request, and says of an error whether the server certainly has not
// got it: as long as there is no connection no byte has left. Of TLS 1.3 there is one
// before the server has looked at a client's certificate, so that what it sends to
// refuse that may come after all of the request.
func do(c *http.Client, req *http.Request, now func() time.Time) (*http.Response, error) {
	connected := false
	resp, err := c.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { connected = false }, // after a redirect, which has said that it has not got it
		GotConn: func(httptrace.GotConnInfo) { connected = true },
	})))
	if err == nil {
		return resp, nil
	}
	if err = failure(err, now()); !connected {
		err = Unsent(err)
	}
	return nil, err
}

// remoteError is the operation of an error that stands for a TLS alert of the
// other end.
const remoteError = "remote error"

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// judge says what an answer means.
func (w *web) judge(resp *http.Response) error {
	code := resp.StatusCode
	if w.succeeds(code) {
		return nil
	}
	said := strconv.Itoa(code)
	service := serviceCode(resp)
	if service != "" {
		said += " " + service
	}
	pause := retryAfter(resp, w.now())
	switch {
	case code == http.StatusForbidden && service == "RequestTimeTooSkewed":
		// It passes when the clock has been set, so that it is never the last word.
		return Unsent(Later(fmt.Errorf("answer %s: %w; it says %s", said, ErrClock, w.now().UTC().Format(time.RFC3339)), pause))
	case code == http.StatusPreconditionFailed,
		(code == http.StatusConflict || code == http.StatusForbidden) && slices.Contains(occupied, service):
		return Unsent(Later(fmt.Errorf("answer %s: %w", said, ErrTaken), pause))
	case code == http.StatusForbidden:
		return Unsent(Later(fmt.Errorf("answer %s: %w; check the credentials in URL and headers, firewalls on the way, and this machine's clock, which says %s",
			said, ErrStatus, w.now().UTC().Format(time.RFC3339)), pause))
	}
	err := Later(fmt.Errorf("answer %s: %w", said, ErrStatus), pause)
	return unlessUnclear(code, err)
}

// unlessUnclear is err of an answer by which the server has not got the envelope,
// unless it is one of those after which it may have it all the same.
func unlessUnclear(code int, err error) error {
	if code == http.StatusRequestTimeout || code >= 500 || code < 300 {
		return err
	}
	return Unsent(err)
}

// occupied are the names that storage services give to a 403 or 409 because the object
// exists. Any other 403 or 409 passes: a second request at the same moment
// (ConditionalRequestConflict, OperationAborted), a signature, a firewall on the way.
var occupied = []string{
	"BlobAlreadyExists", "BlobImmutableDueToPolicy", "FileAlreadyExists", "FileImmutable", "ObjectAlreadyExists", "ResourceAlreadyExists", "UnauthorizedBlobOverwrite",
}

// serviceCode returns the name that S3 and Azure have for an error, from their
// header or from the XML of their answer, or "".
func serviceCode(resp *http.Response) string {
	code := resp.Header.Get("X-Ms-Error-Code")
	if code == "" && resp.StatusCode >= 400 && strings.Contains(resp.Header.Get("Content-Type"), "xml") {
		// An answer without end is nobody's but its own trouble.
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		_, rest, _ := strings.Cut(string(b), "<Code>")
		code, _, _ = strings.Cut(rest, "</Code>")
	}
	if len(code) > 64 || strings.ContainsFunc(code, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) {
		return ""
	}
	return code
}

// retryAfter is the pause that the server asks for (RFC 9110, 10.2.3).
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	s := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(min(max(n, 0), int(longestWish/time.Second))) * time.Second
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	// By the server's own clock, if it says what that is.
	if theirs, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = theirs
	}
	return at.Sub(now)
}
