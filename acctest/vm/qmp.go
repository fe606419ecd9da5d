// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// errQMP is QEMU's refusal of a command, or of the protocol.
var errQMP = errors.New("qemu does not do as asked")

// command sends one command to QEMU's monitor and waits for the answer.
func command(ctx context.Context, socket, name string) error {
	_, err := ask(ctx, socket, name, nil)
	return err
}

// ask is command with arguments, which may be nil. It returns the answer.
func ask(ctx context.Context, socket, name string, arguments any) (json.RawMessage, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	answers := json.NewDecoder(bufio.NewReader(conn))
	var greeting struct {
		QMP *json.RawMessage
	}
	if err := answers.Decode(&greeting); err != nil {
		return nil, err
	}
	if greeting.QMP == nil {
		return nil, fmt.Errorf("%w: no greeting", errQMP)
	}
	type request struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}
	var got json.RawMessage
	for _, r := range []request{{"qmp_capabilities", nil}, {name, arguments}} {
		if err := json.NewEncoder(conn).Encode(r); err != nil {
			return nil, err
		}
		if got, err = answer(answers); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Execute, err)
		}
	}
	return got, nil
}

// answer reads up to the answer, over events.
func answer(in *json.Decoder) (json.RawMessage, error) {
	for {
		var a struct {
			Return *json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := in.Decode(&a); err != nil {
			return nil, err
		}
		if a.Error != nil {
			return nil, fmt.Errorf("%w: %s", errQMP, a.Error.Desc)
		}
		if a.Return != nil {
			return *a.Return, nil
		}
	}
}
