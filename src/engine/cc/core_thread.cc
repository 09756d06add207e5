// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "core_thread.h"

#include <signal.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <limits>
#include <memory>

#include <grpc/support/log.h>

namespace touchdown {

using grpc_core::Timestamp;

namespace {

// A process that stood still (stopped, frozen, moved to another machine) finds that time has
// passed, and what has come meanwhile unread. So the threads that poll get a head start: what has come
// may be just what a timer waits for, such as the answer to a keepalive's ping. A thread that
// wakes later than this stood still, or had to wait as long for its turn.
constexpr int64_t kLate = 150 * 1000 * 1000;
constexpr int64_t kHeadStart = 250 * 1000 * 1000;

thread_local bool t_is_core_thread = false;

}  // namespace

bool CoreThread::IsThis() { return t_is_core_thread; }

CoreThread& CoreThread::Get() {
  static CoreThread& thread = *new CoreThread;
  return thread;
}

void CoreThread::Run(Task task) {
  std::lock_guard<std::mutex> lock(mutex_);
  ready_.push_back(std::move(task));
  WakeFor(std::numeric_limits<int64_t>::min());
}

bool CoreThread::TryRun(Task task) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!Has()) return false;
  ready_.push_back(std::move(task));
  WakeFor(std::numeric_limits<int64_t>::min());
  return true;
}

void CoreThread::StartNow() {
  std::lock_guard<std::mutex> lock(mutex_);
  Has();
}

void CoreThread::Renew() {
  std::unique_ptr<Thread> old;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (thread_ == nullptr || !thread_->asleep) return;
    old.reset(std::exchange(thread_, nullptr));
    if (Start() != 0) {
      thread_ = old.release();
      return;
    }
    Dismiss(old.get());
  }
  pthread_join(old->id, nullptr);
}

CoreThread::TaskHandle CoreThread::RunAt(int64_t at, Task task) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint32_t index = Add(at, std::move(task));
  return {static_cast<intptr_t>(index),
          static_cast<intptr_t>(slots_[index].generation)};
}

bool CoreThread::Cancel(TaskHandle handle) {
  Task task;  // Destroyed without the lock.
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t index = static_cast<size_t>(handle.keys[0]);
  if (index >= slots_.size() || !slots_[index].waits ||
      static_cast<intptr_t>(slots_[index].generation) != handle.keys[1]) {
    return false;
  }
  task = Remove(static_cast<uint32_t>(index));
  // It may have been the last that a thread on its way out was waiting for.
  if (!in_use_) WakeFor(std::numeric_limits<int64_t>::min());
  return true;
}

bool CoreThread::Set(grpc_timer* timer, Timestamp deadline) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!in_use_) return false;
  timer->pending = true;
  timer->heap_index = Add(At(deadline), OfTimer(timer));
  return true;
}

bool CoreThread::Cancel(grpc_timer* timer) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!timer->pending) return false;
  timer->pending = false;
  Remove(timer->heap_index);
  return true;
}

std::vector<grpc_timer*> CoreThread::TakeTimers(Timestamp now) {
  std::vector<grpc_timer*> taken;
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t until = At(now);
  for (auto it = order_.begin(); it != order_.end() && it->first <= until;) {
    const uint32_t index = it->second;
    ++it;
    if (slots_[index].task.timer == nullptr) continue;
    taken.push_back(Remove(index).timer);
    taken.back()->pending = false;
  }
  return taken;
}

void CoreThread::Begin() {
  std::lock_guard<std::mutex> lock(mutex_);
  in_use_ = true;
}

void CoreThread::End() {
  std::unique_ptr<Thread> idle;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    in_use_ = false;
    if (thread_ == nullptr || !thread_->asleep || !IsDone()) return;
    idle.reset(std::exchange(thread_, nullptr));
    Dismiss(idle.get());
  }
  pthread_join(idle->id, nullptr);
}

CoreThread::CoreThread() {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&changed_, &attributes);
  pthread_condattr_destroy(&attributes);
}

uint32_t CoreThread::Add(int64_t at, Task task) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.task = std::move(task);
  slot.at = at;
  slot.waits = true;
  order_.emplace(at, index);
  WakeFor(at);
  return index;
}

Task CoreThread::Remove(uint32_t index) {
  Slot& slot = slots_[index];
  order_.erase({slot.at, index});
  slot.waits = false;
  ++slot.generation;
  free_.push_back(index);
  return std::exchange(slot.task, Task());
}

void CoreThread::Dismiss(Thread* thread) {
  thread->is_to_end = true;
  pthread_cond_broadcast(&changed_);
}

bool CoreThread::Has() {
  if (thread_ != nullptr) return true;
  const int error = Start();
  if (error != 0) gpr_log(GPR_ERROR, "no thread for timers: %s", strerror(error));
  return error == 0;
}

void CoreThread::WakeFor(int64_t at) {
  if (thread_ == nullptr) {
    Has();
  } else if (thread_->asleep && at < thread_->asleep_until) {
    thread_->asleep_until = at;
    pthread_cond_broadcast(&changed_);
  }
}

int CoreThread::Start() {
  std::unique_ptr<Thread> thread(new Thread{this, pthread_t()});
  // Signals are for the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&thread->id, nullptr, Main, thread.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) thread_ = thread.release();
  return error;
}

void* CoreThread::Main(void* arg) {
  Thread* self = static_cast<Thread*>(arg);
  pthread_setname_np(pthread_self(), "td-core");
  t_is_core_thread = true;
  self->owner->Loop(self);
  return nullptr;
}

void CoreThread::Loop(Thread* self) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!self->is_to_end) {
    Task task;
    if (Next(&task)) {
      lock.unlock();
      task.Run();
      // What it holds may call back.
      task = Task();
      lock.lock();
    } else if (!in_use_ && order_.empty()) {
      // Nobody waits for it.
      pthread_detach(pthread_self());
      thread_ = nullptr;
      delete self;
      return;
    } else {
      Sleep(self);
    }
  }
}

bool CoreThread::Next(Task* task) {
  if (!order_.empty() && std::max(order_.begin()->first, resume_at_) <= Now()) {
    *task = Remove(order_.begin()->second);
    if (task->timer != nullptr) task->timer->pending = false;
    return true;
  }
  if (ready_.empty()) return false;
  *task = std::move(ready_.front());
  ready_.pop_front();
  return true;
}

void CoreThread::Sleep(Thread* self) {
  const int64_t until =
      order_.empty() ? kNever : std::max(order_.begin()->first, resume_at_);
  self->asleep = true;
  self->asleep_until = until;
  if (until == kNever) {
    pthread_cond_wait(&changed_, mutex_.native_handle());
  } else {
    const timespec time = SystemTime(until);
    pthread_cond_timedwait(&changed_, mutex_.native_handle(), &time);
    const int64_t now = Now();
    // Once only: a thread that is late each time must come to its work.
    if (until != resume_at_ && now > Later(until, kLate)) {
      resume_at_ = Later(now, kHeadStart);
    }
  }
  self->asleep = false;
}

}  // namespace touchdown
