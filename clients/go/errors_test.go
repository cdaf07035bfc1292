package trunkline_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	trunkline "github.com/trunkline/trunkline/clients/go"
	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

func refusing(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) *trunkline.Error {
	t.Helper()
	router := &scripted{
		generate: func(
			context.Context, *trunklinev1.GenerateRequest,
		) (*trunklinev1.GenerateResponse, error) {
			told, err := status.New(code, "no").WithDetails(details...)
			if err != nil {
				t.Error(err)
			}
			return nil, told.Err()
		},
	}
	request := trunkline.Prompt("", "")
	request.RequestId = "mine"
	_, err := connect(t, serve(t, router)).Generate(context.Background(), request)
	var failed *trunkline.Error
	if !errors.As(err, &failed) {
		t.Fatalf("the call gave %v", err)
	}
	return failed
}

func info(reason trunklinev1.ErrorReason) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Domain: "trunkline", Reason: reason.String()}
}

func TestErrorTellsItsDetails(t *testing.T) {
	told := info(trunklinev1.ErrorReason_ERROR_REASON_RATE_LIMIT)
	told.Metadata = map[string]string{"scope": "key"}
	failed := refusing(t, codes.ResourceExhausted,
		told,
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "model", Description: "wrong"},
		}},
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{
			{Subject: "key:a", Description: "spent"},
		}},
		&trunklinev1.CallReport{Id: "theirs"},
	)
	if failed.Reason != trunklinev1.ErrorReason_ERROR_REASON_RATE_LIMIT ||
		failed.Metadata["scope"] != "key" || failed.RetryAfter != 1500*time.Millisecond ||
		failed.FieldViolations[0] != (trunkline.FieldViolation{Field: "model", Description: "wrong"}) ||
		failed.QuotaViolations[0] != (trunkline.QuotaViolation{Subject: "key:a", Description: "spent"}) ||
		failed.Report.GetId() != "theirs" || failed.RequestID != "theirs" {
		t.Errorf("the error is %+v", failed)
	}
	if got := failed.Error(); got != "trunkline: RATE_LIMIT: no" {
		t.Errorf("it reads %q", got)
	}
	if status.Code(failed) != codes.ResourceExhausted ||
		trunkline.ReasonOf(failed) != failed.Reason {
		t.Error("code and reason are lost on the way")
	}
}

func TestReasonsOfOthersAreNotOurs(t *testing.T) {
	foreign := info(trunklinev1.ErrorReason_ERROR_REASON_RATE_LIMIT)
	foreign.Domain = "elsewhere"
	tomorrow := &errdetails.ErrorInfo{Domain: "trunkline", Reason: "ERROR_REASON_OF_TOMORROW"}
	for _, each := range []*errdetails.ErrorInfo{foreign, tomorrow} {
		failed := refusing(t, codes.Unavailable, each)
		if failed.Reason != trunklinev1.ErrorReason_ERROR_REASON_UNSPECIFIED ||
			failed.RequestID != "mine" || failed.Error() != "trunkline: Unavailable: no" {
			t.Errorf("%v gives %+v", each, failed)
		}
	}
}

func TestErrorsOfTheContextAreFound(t *testing.T) {
	router := &scripted{
		generate: func(
			ctx context.Context, _ *trunklinev1.GenerateRequest,
		) (*trunklinev1.GenerateResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	client := connect(t, serve(t, router))
	bounded, done := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer done()
	_, err := client.Generate(bounded, trunkline.Prompt("", ""))
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("a passed deadline is %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = client.Generate(cancelled, trunkline.Prompt("", ""))
	if !errors.Is(err, context.Canceled) || status.Code(err) != codes.Canceled {
		t.Errorf("a cancelled call is %v", err)
	}
}

func TestFromError(t *testing.T) {
	if err := trunkline.FromError(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	var failed *trunkline.Error
	err := trunkline.FromError(status.Error(codes.NotFound, "gone"))
	if !errors.As(err, &failed) || failed.Code != codes.NotFound {
		t.Errorf("it became %v", err)
	}
	if again := trunkline.FromError(err); again != err {
		t.Errorf("an error of ours became %v", again)
	}
	if got := trunkline.ReasonOf(errors.New("other")); got != 0 {
		t.Errorf("another error has the reason %v", got)
	}
}
