// How C-core hears of the end of a connection on which many calls are open.
//
// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include <algorithm>
#include <string>
#include <utility>

#include "connection.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/transport/http2_errors.h"

namespace touchdown {

using grpc_core::ExecCtx;

void Connection::EndInTurn() {
  if (!server_->turns.Wait([this] { EndSome(); }) && !RunInTurn([this] { EndSome(); })) {
    EndSome();
  }
}

void Connection::EndSome() {
  grpc_closure* callback = nullptr;
  grpc_error_handle error;
  bool cut = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!shut_down_) {
      reading_ = false;
      callback = std::exchange(callback_, nullptr);
      // It is at work on what came before, and reads next.
      if (callback == nullptr) return;
      std::string resets = ResetSome();
      if (!resets.empty()) {
        Put(&resets, slices_);
      } else {
        cut = end_ == End::kCut;
        error = cut ? absl::UnavailableError("connection is cut") : end_error_;
        end_ = End::kNone;
        if (cut) Hold(TOUCHDOWN_CUT);
      }
    }
  }
  if (callback == nullptr) {
    // It was shut down meanwhile.
    grpc_slice_buffer_reset_and_unref(&incoming_);
    return Came(absl::OkStatus(), /*is_new=*/false);
  }
  if (cut) Act(TOUCHDOWN_CUT);
  ExecCtx::Run(DEBUG_LOCATION, callback, error);
}

std::string Connection::ResetSome() {
  std::string resets;
  // Inside a frame it would be taken for a piece of that.
  if (end_ == End::kCut ? !ends_at_boundary_ : !frames_.AtBoundary()) return resets;
  const size_t count = std::min(server_->turns.OneGo(), calls_.open());
  server_->turns.Use(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t stream = calls_.newest();
    EndCall(stream);
    guard_.Ended(stream);
    resets += Reset(stream, GRPC_HTTP2_CANCEL);
  }
  return resets;
}

}  // namespace touchdown
