// Command story tells a story from the model within the library: story [PROMPT [MODEL]].
package main

// #cgo pkg-config: bitnet
// #include <bitnet.h>
// #include <stdlib.h>
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// failure takes an error of the library, which is freed.
func failure(e *C.bitnet_error) error {
	defer C.bitnet_error_free(e)
	return errors.New(C.GoString(C.bitnet_error_message(e, nil)))
}

// Model is a model of the library. Any number of goroutines may use it.
type Model struct{ handle *C.bitnet_model }

// Load opens a GGUF file; an empty path is the model within the library.
func Load(path string) (*Model, error) {
	var e *C.bitnet_error
	m := &Model{}
	if path == "" {
		C.bitnet_model_builtin(nil, &m.handle, &e)
	} else {
		text := C.CString(path)
		defer C.free(unsafe.Pointer(text))
		C.bitnet_model_load(text, C.size_t(len(path)), nil, &m.handle, &e)
	}
	if e != nil {
		return nil, failure(e)
	}
	return m, nil
}

// Close frees the model.
func (m *Model) Close() { C.bitnet_model_free(m.handle) }

// Generate continues a prompt and hands each piece of text to yield, until that returns false.
func (m *Model) Generate(prompt string, tokens int, seed uint64, yield func(string) bool) error {
	var e *C.bitnet_error
	var session *C.bitnet_session
	if C.bitnet_session_new(m.handle, &session, &e) != C.BITNET_STATUS_OK {
		return failure(e)
	}
	defer C.bitnet_session_free(session)

	var options C.bitnet_generate_options
	if C.bitnet_generate_options_init(m.handle, &options, C.sizeof_bitnet_generate_options, &e) != C.BITNET_STATUS_OK {
		return failure(e)
	}
	options.max_tokens = C.size_t(tokens)
	options.seed = C.uint64_t(seed)

	text := C.CString(prompt)
	defer C.free(unsafe.Pointer(text))
	var stream *C.bitnet_stream
	if C.bitnet_stream_new(session, text, C.size_t(len(prompt)), &options, &stream, &e) != C.BITNET_STATUS_OK {
		return failure(e)
	}
	defer C.bitnet_stream_free(stream)
	for {
		var piece C.bitnet_piece
		switch C.bitnet_stream_next(stream, &piece, &e) {
		case C.BITNET_STATUS_OK:
			if !yield(C.GoStringN(piece.text.data, C.int(piece.text.len))) {
				return nil
			}
		case C.BITNET_STATUS_END:
			return nil
		default:
			return failure(e)
		}
	}
}

func run(args []string) error {
	if C.bitnet_abi_version() != C.BITNET_ABI_VERSION {
		return errors.New("the library is not of the header's version")
	}
	prompt, path := "Once upon a time", ""
	if len(args) > 0 {
		prompt = args[0]
	}
	if len(args) > 1 {
		path = args[1]
	}
	model, err := Load(path)
	if err != nil {
		return err
	}
	defer model.Close()
	fmt.Print(prompt)
	err = model.Generate(prompt, 100, 7, func(piece string) bool {
		fmt.Print(piece)
		return true
	})
	fmt.Println()
	return err
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
