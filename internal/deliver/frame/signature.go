// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package frame

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
)

// The headers of a signed request on the channel http.
const (
	// SignatureHeader holds what [Sign] returns.
	SignatureHeader = "X-Totp-Signature"

	// UserHeader holds the envelope's user, and is part of what is signed.
	UserHeader = "X-Totp-User"
)

// Sign returns the value of [SignatureHeader] for a request with this body:
// "v1=" and the HMAC-SHA256, in lower-case hex, of
//
//	totp-envelope/1 LF METHOD SP TARGET LF USER LF BODYHASH
//
// TARGET is the path and query of the request line, USER the value of
// [UserHeader], BODYHASH the SHA-256 of the body in lower-case hex. A recorded
// request is therefore good for the same envelope at the same place only.
func Sign(key []byte, method, target, user string, body []byte) string {
	sum := sha256.Sum256(body)
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, "totp-envelope/1\n"+method+" "+target+"\n"+user+"\n"+hex.EncodeToString(sum[:]))
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Signed reports whether a received request carries the signature of key. The
// request is one that a server got; body has been read from it.
func Signed(key []byte, req *http.Request, body []byte) bool {
	want := Sign(key, req.Method, req.RequestURI, req.Header.Get(UserHeader), body)
	return hmac.Equal([]byte(want), []byte(req.Header.Get(SignatureHeader)))
}
