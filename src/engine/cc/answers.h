// Which answers of a connection have arrived.

#ifndef TOUCHDOWN_ANSWERS_H
#define TOUCHDOWN_ANSWERS_H

#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <vector>

namespace touchdown {

// How many answers are remembered before it is asked which of them have arrived.
constexpr size_t kFewAnswers = 32;

// Which answers have reached the peer's kernel. A place is a number of bytes since the
// connection began.
class Answers {
 public:
  // One ends at `place`, in a write that has been begun.
  void Begin(uint64_t place) { begun_.push_back(place); }
  // The write is with the kernel, and ends at `place`; so do its answers, if theirs are not
  // known.
  void End(uint64_t place, bool are_known) {
    for (const uint64_t it : begun_) written_.push_back(are_known ? it : place);
    begun_.clear();
  }
  // Those of the write are with the peer.
  void EndAtPeer() { begun_.clear(); }
  // Everything up to `place` is there.
  void Arrived(uint64_t place) {
    written_.erase(written_.begin(),
                   std::upper_bound(written_.begin(), written_.end(), place));
    few_ = std::max(kFewAnswers, written_.size() * 2);
  }
  bool AreMany() const { return written_.size() >= few_; }
  size_t written() const { return written_.size(); }
  size_t begun() const { return begun_.size(); }
  // How many of the write under way are there.
  size_t ArrivedOfBegun(uint64_t place) const {
    return std::upper_bound(begun_.begin(), begun_.end(), place) - begun_.begin();
  }

 private:
  // Both in order.
  std::vector<uint64_t> written_;
  std::vector<uint64_t> begun_;
  size_t few_ = kFewAnswers;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_ANSWERS_H
