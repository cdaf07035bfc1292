package trunkline

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

// Prompt is a request with one user message.
func Prompt(model, text string) *trunklinev1.GenerateRequest {
	return &trunklinev1.GenerateRequest{
		Model:    model,
		Messages: []*trunklinev1.Message{UserMessage(text)},
	}
}

// UserMessage is what the user says.
func UserMessage(text string) *trunklinev1.Message {
	return &trunklinev1.Message{
		Role:  trunklinev1.Role_ROLE_USER,
		Parts: []*trunklinev1.Part{{Kind: &trunklinev1.Part_Text{Text: text}}},
	}
}

// Text joins the text parts of an answer's message; reasoning and tool calls are left out.
func Text(message *trunklinev1.Message) string {
	var text strings.Builder
	for _, part := range message.GetParts() {
		text.WriteString(part.GetText())
	}
	return text.String()
}

// Assembler joins the deltas of a streamed answer, which may come for several parts in turn, into
// the message that Generate would have returned. The zero value is ready.
type Assembler struct {
	parts     map[int32]*pieces
	sources   []*trunklinev1.Source
	citations []*trunklinev1.Citation
}

// pieces is a part in the making. Texts grow in builders: joining anew with each delta would take
// time quadratic in the answer's length.
type pieces struct {
	part *trunklinev1.Part
	text strings.Builder
}

// Add takes the next delta. One of a kind that is not known is passed over.
func (a *Assembler) Add(delta *trunklinev1.StreamDelta) {
	switch kind := delta.GetKind().(type) {
	case *trunklinev1.StreamDelta_Source:
		a.sources = append(a.sources, kind.Source)
	case *trunklinev1.StreamDelta_Citation:
		a.citations = append(a.citations, kind.Citation)
	case *trunklinev1.StreamDelta_Text:
		grown := a.part(delta)
		if grown.part.Kind == nil {
			grown.part.Kind = &trunklinev1.Part_Text{}
		}
		grown.text.WriteString(kind.Text)
	case *trunklinev1.StreamDelta_Reasoning:
		grown := a.part(delta)
		if grown.part.Kind == nil {
			grown.part.Kind = &trunklinev1.Part_Reasoning{Reasoning: &trunklinev1.Reasoning{}}
		}
		grown.text.WriteString(kind.Reasoning)
	case *trunklinev1.StreamDelta_ToolCall:
		grown := a.part(delta)
		if grown.part.Kind == nil {
			grown.part.Kind = &trunklinev1.Part_ToolCall{ToolCall: &trunklinev1.ToolCall{}}
		}
		if call := grown.part.GetToolCall(); call != nil {
			call.Id = first(call.GetId(), kind.ToolCall.GetId())
			call.Name = first(call.GetName(), kind.ToolCall.GetName())
		}
		grown.text.WriteString(kind.ToolCall.GetArgumentsJson())
	case *trunklinev1.StreamDelta_Signature:
		a.part(delta).part.Signature = kind.Signature
	case *trunklinev1.StreamDelta_Part:
		proto.Merge(a.part(delta).part, kind.Part)
	}
}

// Message is the assistant's message so far, its parts in the order of their index.
func (a *Assembler) Message() *trunklinev1.Message {
	message := &trunklinev1.Message{
		Role:      trunklinev1.Role_ROLE_ASSISTANT,
		Sources:   a.sources,
		Citations: a.citations,
	}
	for _, index := range slices.Sorted(maps.Keys(a.parts)) {
		grown := a.parts[index]
		part := proto.CloneOf(grown.part)
		switch kind := part.GetKind().(type) {
		case *trunklinev1.Part_Text:
			kind.Text += grown.text.String()
		case *trunklinev1.Part_Reasoning:
			kind.Reasoning.Text += grown.text.String()
		case *trunklinev1.Part_ToolCall:
			kind.ToolCall.ArgumentsJson += grown.text.String()
		}
		message.Parts = append(message.Parts, part)
	}
	return message
}

func (a *Assembler) part(delta *trunklinev1.StreamDelta) *pieces {
	if a.parts == nil {
		a.parts = map[int32]*pieces{}
	}
	grown := a.parts[delta.GetPartIndex()]
	if grown == nil {
		grown = &pieces{part: &trunklinev1.Part{}}
		a.parts[delta.GetPartIndex()] = grown
	}
	return grown
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
