// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// The words that HTTP adds to those of the virtio port.
const (
	wordPath   frame.Word = "path"   // not /CLIENT/ID
	wordMethod frame.Word = "method" // neither PUT nor POST
	wordAuth   frame.Word = "auth"   // no credential, or a wrong one
	wordBody   frame.Word = "body"   // the body did not arrive
	wordRate   frame.Word = "rate"   // more than this client may send now
	wordBusy   frame.Word = "busy"   // the server has enough to do
)

// statuses says how each refusal is put.
var statuses = map[frame.Word]int{
	wordPath:        http.StatusNotFound,
	wordMethod:      http.StatusMethodNotAllowed,
	wordAuth:        http.StatusUnauthorized,
	wordBody:        http.StatusBadRequest,
	wordRate:        http.StatusTooManyRequests,
	wordBusy:        http.StatusServiceUnavailable,
	frame.WordName:  http.StatusBadRequest,
	frame.WordSize:  http.StatusRequestEntityTooLarge,
	frame.WordAge:   http.StatusBadRequest,
	frame.WordLimit: http.StatusInsufficientStorage,
	frame.WordStore: http.StatusInternalServerError,

	frame.WordExists: http.StatusPreconditionFailed,
}

// ServeHTTP takes one envelope.
func (s *server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	e, body, word := s.check(w, req)
	fresh := false
	if word == "" {
		fresh, word = s.keep(e, body)
	}
	from, _, _ := net.SplitHostPort(req.RemoteAddr)
	w.Header().Set("Content-Type", "text/plain")
	if word != "" {
		s.complain("%s: refused: %s, from %s", e.name(), word, from)
		switch word {
		case wordAuth:
			w.Header().Set("WWW-Authenticate", "Bearer")
		case wordMethod:
			w.Header().Set("Allow", "PUT, POST")
		case wordRate:
			w.Header().Set("Retry-After", "10")
		case wordBusy, frame.WordStore:
			w.Header().Set("Retry-After", "2")
		}
		w.WriteHeader(statuses[word])
		io.WriteString(w, frame.Err(word))
		return
	}
	ok := frame.OK(body)
	if fresh {
		s.logf("%s: stored, %d bytes, sha256 %s, from %s", e.name(), len(body), ok[3:len(ok)-1], from)
		s.hooks.arrived(e)
		w.WriteHeader(http.StatusCreated)
	} else {
		s.complain("%s: had it already, confirmed again, to %s", e.name(), from)
	}
	io.WriteString(w, ok)
	if s.confirmed(e.file) {
		s.done()
	}
}

// check reads a request, and returns the envelope in it or why it is refused.
func (s *server) check(w http.ResponseWriter, req *http.Request) (e arrival, body []byte, no frame.Word) {
	if req.Method != http.MethodPut && req.Method != http.MethodPost {
		return e, nil, wordMethod
	}
	client, id, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if !ok {
		client, id = "", client
	}
	if ok && !isClient(client) || frame.CheckID(id) != nil {
		return e, nil, wordPath
	}
	e.client, e.id = client, id
	user := req.Header.Get(frame.UserHeader)
	if user == "" {
		user = req.URL.Query().Get("user")
	}
	if user != "" && frame.CheckUser(user) != nil {
		return e, nil, frame.WordName
	}
	e.user = user
	e.file = filepath.Join(s.Dir, filepath.FromSlash(e.name()))

	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, frame.MaxPayload))
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		return e, nil, frame.WordSize
	}
	if err != nil {
		return e, nil, wordBody
	}
	// Who has no credential learns nothing but that.
	if !s.credentials.get().allow(client, req, body) {
		return e, nil, wordAuth
	}
	if !isAge(body) && !isBinaryAge(body) {
		return e, nil, frame.WordAge
	}
	return e, body, ""
}

// keep stores an envelope.
func (s *server) keep(e arrival, body []byte) (fresh bool, no frame.Word) {
	own := s.hasLine(e.client)
	for _, slots := range []chan struct{}{s.shared, s.slots} {
		if own && slots == s.shared {
			continue
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			return false, wordBusy
		}
	}
	if !s.within(e.client) {
		return false, wordRate
	}
	if e.client != "" {
		n, err := s.store.count(e.client)
		if err == nil && n >= maxNew {
			if there, err := compare(e.file, body); !there || err != nil {
				return false, frame.WordLimit
			}
		}
	}
	if !own {
		_, err := os.Lstat(filepath.Dir(e.file))
		done, err := s.quota.reserve(int64(len(body)), errors.Is(err, fs.ErrNotExist))
		if err == nil {
			defer func() { done(fresh) }()
		} else if there, _ := compare(e.file, body); !there {
			s.complain("%s: %v", e.name(), err)
			return false, frame.WordLimit
		}
	}
	fresh, err := s.store.put(filepath.FromSlash(e.name()), body)
	switch {
	case errors.Is(err, errExists):
		return false, frame.WordExists
	case err != nil:
		s.complain("%s: %v", e.name(), err)
		return false, frame.WordStore
	}
	return fresh, ""
}

// name is the envelope's file below the directory, by which it is logged as well.
func (e arrival) name() string {
	switch {
	case e.id == "":
		return "a request"
	case e.user == "":
		return path.Join(e.client, e.id+".age")
	}
	return path.Join(e.client, fmt.Sprintf("%s-%s.age", e.user, e.id))
}

// printable makes what others have a hand in fit for a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimRight(s, "\n"))
}
