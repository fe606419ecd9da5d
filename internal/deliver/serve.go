// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

var errSendRequest = errors.New("not a request of totp-agent deliver")

// Serve makes one attempt on a network channel for totp-agent deliver, which writes
// the request to r and reads the outcome from w. It needs no privileges, and reads
// no file of the agent's. The error is about the request or the reply; that of the
// attempt goes to w.
func Serve(ctx context.Context, r io.Reader, w io.Writer) error {
	data, err := io.ReadAll(io.LimitReader(r, maxRequest+1))
	if err != nil {
		return err
	}
	var q sendRequest
	if len(data) > maxRequest || strict(data, &q) != nil {
		return fmt.Errorf("standard input: %w", errSendRequest)
	}
	do, err := q.try()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(q.Time, 0), maxAttempt))
	defer cancel()
	reply, err := json.Marshal(replyTo(do(ctx, q.Item)))
	if err != nil {
		return err
	}
	_, err = w.Write(reply)
	return err
}

// try is the attempt that is asked for.
func (q sendRequest) try() (func(context.Context, Item) error, error) {
	c := q.Channel
	c.URL, c.Headers, c.Template, c.HMACKey = q.URL, q.Headers, q.Template, q.HMACKey
	d := drivers[c.Type]
	if !d.Network {
		return nil, fmt.Errorf("channel %.64q: %w", c.Type, errSendRequest)
	}
	if err := errors.Join(d.Check(c), q.Item.valid()); err != nil {
		return nil, err
	}
	for name, value := range q.Env {
		if !slices.Contains(target.DeliverEnv, name) {
			return nil, fmt.Errorf("env: %.64q: %w", name, errSendRequest)
		}
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	ch := d.New(c, nil)
	if h, ok := ch.(*web); ok {
		h.read = func(name string) ([]byte, error) {
			data, ok := q.Files[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			return data, nil
		}
	}
	if !q.Look {
		return ch.Send, nil
	}
	if l, ok := ch.(Looker); ok {
		return l.Look, nil
	}
	return nil, fmt.Errorf("look: %.64q: %w", c.Type, errSendRequest)
}

// strict decodes exactly one JSON value without unknown fields.
func strict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errSendRequest
	}
	return nil
}
