package main

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/state"
)

const (
	// maxText bounds what send reads from its input, bytes; WhatsApp takes 65,536
	// characters.
	maxText = 256 << 10
	// maxMessage bounds a message in protobuf JSON.
	maxMessage = 1 << 20
)

// toSend is what the flags of send say.
type toSend struct {
	at, key, replyTo, sender, react string
	unreact                         bool
	file, url, kind, mime, name     string
	seconds                         int
	voice                           bool
	message                         string
}

func (a *app) sendCommand() *cobra.Command {
	var s toSend
	cmd := &cobra.Command{
		Use:   "send SESSION TO [TEXT]",
		Short: "Send a message; it waits in the outbox until the session is online",
		Long: "Sends a text, a file, a reaction, or any message in protobuf JSON. TO is a phone number\n" +
			"with its country code, or a JID. TEXT is the text, or the caption of a file, as one\n" +
			"argument; - reads it from the input.",
		Example: "  holdfast send default 4915112345678 'hello'\n" +
			"  date | holdfast send default 4915112345678 -\n" +
			"  holdfast send default 4915112345678 'I will be there' --reply-to 3A2EC0E4E60D346D1F8684\n" +
			"  holdfast send default 4915112345678 --react 👍 --reply-to 3A2EC0E4E60D346D1F8684\n" +
			"  holdfast send default 4915112345678 'the plan' --file plan.pdf\n" +
			"  holdfast send default 4915112345678 --media-url https://example.org/cat.jpg",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return exactly("SESSION", "TO", "TEXT")(cmd, args)
		},
		ValidArgsFunction: a.sessionCompletion,
	}
	w := waitFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&s.at, "at", "", "when to send it: a time such as 2026-01-31T08:00:00Z, or from now, such as 2h")
	f.StringVar(&s.key, "idempotency-key", "", "a repeated call with the same key sends nothing twice")
	f.StringVar(&s.replyTo, "reply-to", "", "id of the message that this answers, or reacts to")
	f.StringVar(&s.sender, "sender", "", "who wrote that message; wanted in groups, where it is long ago")
	f.StringVar(&s.react, "react", "", "react to the message of --reply-to with this emoji")
	f.BoolVar(&s.unreact, "unreact", false, "take the reaction to that message back")
	f.StringVar(&s.file, "file", "", "upload and send this file; - reads it from the input")
	f.StringVar(&s.url, "media-url", "", "have the worker fetch and send a file from this URL")
	f.StringVar(&s.kind, "kind", "", "what the file is shown as: image, video, audio, document or sticker; by itself what it is")
	f.StringVar(&s.mime, "mime", "", "the file's media type; by itself what it is")
	f.StringVar(&s.name, "file-name", "", "what the file is called; by itself its own name")
	f.IntVar(&s.seconds, "seconds", 0, "how long audio or video plays")
	f.BoolVar(&s.voice, "voice", false, "audio as a voice message; it must be Ogg with Opus")
	f.StringVar(&s.message, "message", "", "send what this file holds, a message in protobuf JSON; - reads the input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := a.messageOf(s, args)
		if err != nil {
			return err
		}
		wait := min(*w, longestWait)
		if body.SendAt.After(a.now()) {
			wait = 0
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		if s.file != "" {
			if err := a.uploadFile(cmd, c, args[0], s, body); err != nil {
				return err
			}
		}
		r := request{method: http.MethodPost, path: sessionPath(args[0], "messages"), body: body, wait: wait}
		return a.message(cmd, c, args[0], r)
	}
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(
		[]string{state.MediaImage, state.MediaVideo, state.MediaAudio, state.MediaDocument, state.MediaSticker}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return a.clientCommand(cmd)
}

// messageOf makes the request of flags and arguments. A file is not uploaded yet.
func (a *app) messageOf(s toSend, args []string) (*adminapi.SendMessage, error) {
	body := &adminapi.SendMessage{To: args[1], IdempotencyKey: s.key, Sender: s.sender}
	text := ""
	if len(args) == 3 {
		text = args[2]
	}
	inputs := 0
	for _, from := range []string{text, s.file, s.message} {
		if from == "-" {
			inputs++
		}
	}
	media := s.file != "" || s.url != ""
	reacts := s.react != "" || s.unreact
	switch {
	case inputs > 1:
		return nil, usagef("send: the input can be read once; give the other by its name")
	case s.file != "" && s.url != "":
		return nil, usagef("send: --file and --media-url exclude each other")
	case s.react != "" && s.unreact:
		return nil, usagef("send: --react and --unreact exclude each other")
	case reacts && s.replyTo == "":
		return nil, usagef("send: which message to react to is missing; use --reply-to ID")
	case reacts && (media || text != "" || s.message != ""):
		return nil, usagef("send: a reaction goes without text and file; send them by themselves")
	case s.message != "" && (media || text != "" || s.replyTo != ""):
		return nil, usagef("send: --message goes alone; text, file and quotation are in it")
	case !media && (s.kind != "" || s.mime != "" || s.name != "" || s.voice || s.seconds != 0):
		return nil, usagef("send: the file is missing; use --file or --media-url")
	}
	if text == "-" {
		b, err := a.input("-", maxText)
		if err != nil {
			return nil, err
		}
		text = strings.TrimRight(string(b), "\n")
	}
	switch {
	case reacts:
		body.Reaction = &adminapi.SendReaction{To: s.replyTo, Emoji: s.react}
	case s.message != "":
		b, err := a.input(s.message, maxMessage)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, &body.Message); err != nil || len(body.Message) == 0 {
			return nil, fmt.Errorf("send: %s is no message in protobuf JSON; field names are as in message.received", s.message)
		}
	case text == "" && !media && len(args) == 2:
		return nil, usagef("send: TEXT is missing; use holdfast send SESSION TO TEXT, or a flag such as --file")
	case text == "" && !media:
		return nil, usagef("send: the text is empty; write one, in quotes")
	default:
		body.Text, body.ReplyTo = text, s.replyTo
	}
	if media {
		body.Media = &adminapi.SendMedia{Kind: s.kind, URL: s.url, MIME: s.mime, FileName: s.name, Seconds: s.seconds, Voice: s.voice}
	}
	if s.at != "" {
		t, err := sendTime(s.at, a.now())
		if err != nil {
			return nil, err
		}
		body.SendAt = t
	}
	return body, nil
}

// input reads a file, or the standard input for -.
func (a *app) input(name string, most int64) ([]byte, error) {
	from := a.io.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("send: %s cannot be read: %w", name, cause(err))
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("send: %s cannot be read: %w", name, cause(err))
	case int64(len(b)) > most:
		return nil, fmt.Errorf("send: %s has more than %d bytes; that is too much for a message", name, most)
	}
	return b, nil
}

// uploadFile uploads the file of a message and names it there. A repeated call with
// the same key finds what it has uploaded.
func (a *app) uploadFile(cmd *cobra.Command, c *client, session string, s toSend, body *adminapi.SendMessage) error {
	data, err := a.input(s.file, mostMedia)
	if err != nil {
		return err
	}
	r := request{method: http.MethodPost, path: sessionPath(session, "media"), raw: data, contentType: s.mime, key: s.key, query: url.Values{}}
	if s.file != "-" {
		if s.name == "" {
			body.Media.FileName = filepath.Base(s.file)
		}
		if r.contentType == "" {
			r.contentType = mime.TypeByExtension(filepath.Ext(s.file))
		}
	}
	if r.contentType == "" {
		r.contentType = http.DetectContentType(data[:min(len(data), 512)])
	}
	if body.Media.FileName != "" {
		r.query.Set("fileName", body.Media.FileName)
	}
	var up adminapi.Upload
	if err := c.call(cmd.Context(), r, &up); err != nil {
		return fmt.Errorf("%s: the file was not uploaded: %w", session, err)
	}
	body.Media.ID = up.ID
	return nil
}
