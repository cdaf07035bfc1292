package trunkline

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

const domain = "trunkline"

// Error is a call that failed, read from the google.rpc.Status that the router attaches. Have it
// by errors.As. errors.Is finds context.Canceled in a cancelled call and context.DeadlineExceeded
// in one that ran out of time.
type Error struct {
	// Code is gRPC's.
	Code codes.Code
	// Reason is the router's own. Unspecified when the failure carries none: then the router did
	// not answer, or something between did.
	Reason trunklinev1.ErrorReason
	// Message is for people.
	Message string
	// Metadata holds the reason's particulars.
	Metadata map[string]string
	// RetryAfter is the pause that the router asks for. Zero when it named none.
	RetryAfter time.Duration
	// FieldViolations names the wrong fields of a request.
	FieldViolations []FieldViolation
	// QuotaViolations names the quotas that are spent.
	QuotaViolations []QuotaViolation
	// Report says what the call did and cost before it failed. Nil when nothing was sent to a
	// provider.
	Report *trunklinev1.CallReport
	// RequestID is the call's id in the router's log. Empty when it is not known.
	RequestID string

	cause error
}

// FieldViolation is one wrong field of a request: its path, such as messages[0].role, and what is
// wrong with it.
type FieldViolation struct{ Field, Description string }

// QuotaViolation is one spent quota: whose it is and what was reached.
type QuotaViolation struct{ Subject, Description string }

// Error tells the reason, or gRPC's code where there is none, and the message.
func (e *Error) Error() string {
	name := e.Code.String()
	if e.Reason != trunklinev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		name = strings.TrimPrefix(e.Reason.String(), "ERROR_REASON_")
	}
	return "trunkline: " + name + ": " + e.Message
}

// Unwrap gives the error as gRPC made it.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus makes status.FromError and status.Code work.
func (e *Error) GRPCStatus() *status.Status {
	if e.cause != nil {
		return status.Convert(e.cause)
	}
	return status.New(e.Code, e.Message)
}

// Is equates the error with the context's errors where the codes mean the same.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	default:
		return false
	}
}

// ReasonOf gives the router's reason for a failure; unspecified for errors that carry none, and
// for nil.
func ReasonOf(err error) trunklinev1.ErrorReason {
	var failed *Error
	if errors.As(err, &failed) {
		return failed.Reason
	}
	return trunklinev1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// FromError makes an *Error of an error that gRPC returned; nil stays nil.
func FromError(err error) error {
	if err == nil {
		return nil
	}
	return fromError(err, "")
}

func fromError(err error, requestID string) error {
	var failed *Error
	if errors.As(err, &failed) {
		return err
	}
	told := status.Convert(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		told = status.FromContextError(err)
	}
	failed = &Error{Code: told.Code(), Message: told.Message(), RequestID: requestID, cause: err}
	for _, detail := range told.Details() {
		failed.take(detail)
	}
	if failed.RequestID == "" {
		failed.RequestID = failed.Metadata["request_id"]
	}
	if id := failed.Report.GetId(); id != "" {
		failed.RequestID = id
	}
	return failed
}

// take reads one detail; those that are not known, or garbled, are passed over.
func (e *Error) take(detail any) {
	switch detail := detail.(type) {
	case *errdetails.ErrorInfo:
		reason, known := trunklinev1.ErrorReason_value[detail.GetReason()]
		if detail.GetDomain() == domain && known {
			e.Reason = trunklinev1.ErrorReason(reason)
			e.Metadata = detail.GetMetadata()
		}
	case *errdetails.RetryInfo:
		e.RetryAfter = detail.GetRetryDelay().AsDuration()
	case *errdetails.BadRequest:
		for _, each := range detail.GetFieldViolations() {
			e.FieldViolations = append(
				e.FieldViolations, FieldViolation{each.GetField(), each.GetDescription()})
		}
	case *errdetails.QuotaFailure:
		for _, each := range detail.GetViolations() {
			e.QuotaViolations = append(
				e.QuotaViolations, QuotaViolation{each.GetSubject(), each.GetDescription()})
		}
	case *trunklinev1.CallReport:
		e.Report = detail
	}
}
