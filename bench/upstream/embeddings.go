package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

type embedRequest struct {
	Model          string          `json:"model"`
	Input          json.RawMessage `json:"input"`
	Dimensions     int             `json:"dimensions"`
	EncodingFormat string          `json:"encoding_format"`
}

// vectors keeps each vector as the JSON text it is sent as.
var vectors sync.Map

type vectorShape struct {
	dims   int
	base64 bool
}

func (p *provider) embed(w http.ResponseWriter, r *http.Request, k knobs) {
	var request embedRequest
	size, ok := read(w, r, &request)
	if !ok {
		return
	}
	model, k, err := ofModel(request.Model, k)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	inputs := 1
	if strings.HasPrefix(string(request.Input), "[") {
		var list []json.RawMessage
		if err := json.Unmarshal(request.Input, &list); err != nil {
			refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
			return
		}
		inputs = len(list)
	}
	if request.Dimensions > 0 {
		k.dims = request.Dimensions
	}
	if !p.begin(w, r, k) {
		return
	}
	vector := vectorText(vectorShape{k.dims, request.EncodingFormat == "base64"})
	var body strings.Builder
	body.WriteString(`{"object":"list","data":[`)
	for index := range inputs {
		if index > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"object":"embedding","index":%d,"embedding":%s}`, index, vector)
	}
	fmt.Fprintf(&body, `],"model":%q,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`,
		model, size/4, size/4)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	_, _ = io.WriteString(w, body.String())
}

// vectorText is a vector of length one whose digits are as many as a vendor's.
func vectorText(shape vectorShape) string {
	if text, found := vectors.Load(shape); found {
		return text.(string)
	}
	values := make([]float32, shape.dims)
	scale := math.Sqrt(2 / float64(max(shape.dims, 1)))
	for index := range values {
		values[index] = float32(scale * math.Sin(float64(index)+0.5))
	}
	var text string
	if shape.base64 {
		raw := make([]byte, 4*len(values))
		for index, value := range values {
			binary.LittleEndian.PutUint32(raw[4*index:], math.Float32bits(value))
		}
		text = `"` + base64.StdEncoding.EncodeToString(raw) + `"`
	} else {
		encoded, _ := json.Marshal(values)
		text = string(encoded)
	}
	vectors.Store(shape, text)
	return text
}
