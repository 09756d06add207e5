// What is modelled, and the bugs that the models must find. Read by build.rs.

/// Sources of touchdown that are explored together.
pub struct Model {
    /// The name of its module, and of its file in scenarios/.
    pub name: &'static str,
    /// Where its sources are, in touchdown's src/.
    pub folder: &'static str,
    /// The modules it is made of: files in that folder, or `mod` for the whole of it.
    pub modules: &'static [&'static str],
    /// The seam instead of `crate::sync`.
    pub seam: Option<&'static str>,
    pub bugs: &'static [Bug],
}

/// A bug to seed into a copy of the sources.
pub struct Bug {
    /// The name of its module.
    pub name: &'static str,
    pub file: &'static str,
    /// What stands there exactly once, and what takes its place.
    pub edits: &'static [(&'static str, &'static str)],
}

pub const MODELS: &[Model] = &[
    Model {
        name: "gate",
        folder: "lifecycle",
        modules: &["in_flight"],
        seam: None,
        bugs: &[
            Bug {
                name: "enter_looks_at_closed_only_once",
                file: "in_flight.rs",
                edits: &[(
                    "loop {\n            if word & CLOSED != 0 {",
                    "let closed = word & CLOSED != 0;\n        loop {\n            if closed {",
                )],
            },
            Bug {
                name: "leave_looks_for_waiters_before_it_leaves",
                file: "in_flight.rs",
                edits: &[(
                    "let before = self.word.fetch_sub(1, Ordering::Release);",
                    "let before = self.word.load(Ordering::Relaxed);\n        self.word.fetch_sub(1, Ordering::Release);",
                )],
            },
            Bug {
                name: "interrupt_takes_no_lock",
                file: "in_flight.rs",
                edits: &[("drop(self.gate.emptied.lock());", "")],
            },
            Bug {
                name: "a_moment_of_emptiness_is_forgotten",
                file: "in_flight.rs",
                edits: &[("*emptied += 1;\n            // Who sleeps", "// Who sleeps")],
            },
            Bug {
                name: "a_timeout_is_taken_for_empty",
                file: "in_flight.rs",
                edits: &[(
                    "if timed_out || give_up() {\n                return false;",
                    "if timed_out || give_up() {\n                return timed_out;",
                )],
            },
        ],
    },
    Model {
        name: "gate_orderings",
        folder: "lifecycle",
        modules: &["in_flight"],
        seam: Some("crate::loom_sync"),
        bugs: &[
            Bug {
                name: "leave_is_relaxed",
                file: "in_flight.rs",
                edits: &[("let before = self.word.fetch_sub(1, Ordering::Release)", "let before = self.word.fetch_sub(1, Ordering::Relaxed)")],
            },
            Bug {
                name: "close_is_relaxed",
                file: "in_flight.rs",
                edits: &[("fetch_or(CLOSED, Ordering::AcqRel)", "fetch_or(CLOSED, Ordering::Relaxed)")],
            },
            Bug {
                name: "a_refusal_acquires_nothing",
                file: "in_flight.rs",
                edits: &[("                fence(Ordering::Acquire);\n", "")],
            },
            Bug {
                name: "leave_looks_for_waiters_before_it_leaves",
                file: "in_flight.rs",
                edits: &[(
                    "let before = self.word.fetch_sub(1, Ordering::Release);",
                    "let before = self.word.load(Ordering::Relaxed);\n        self.word.fetch_sub(1, Ordering::Release);",
                )],
            },
        ],
    },
    Model {
        name: "tokens",
        folder: "lifecycle",
        modules: &["shutdown"],
        seam: None,
        bugs: &[
            Bug {
                name: "a_child_looks_before_it_locks",
                file: "shutdown.rs",
                edits: &[
                    ("let mut links = self.node.links.lock();\n        if self.is_cancelled() {", "if self.is_cancelled() {"),
                    ("let key = links.next_key;", "let mut links = self.node.links.lock();\n        let key = links.next_key;"),
                ],
            },
            Bug {
                name: "who_waits_does_not_look_again",
                file: "shutdown.rs",
                edits: &[(
                    "if !self.is_cancelled() {\n                links.sender = Some(sender);\n            }",
                    "links.sender = Some(sender);",
                )],
            },
            Bug {
                name: "cancel_takes_the_children_before_it_sets_the_flag",
                file: "shutdown.rs",
                edits: &[
                    ("            // Pairs with the Acquire in `Token::is_cancelled`.\n            self.cancelled.store(true, Ordering::Release);\n", ""),
                    ("// Wakes the waiting threads, with the lock released.", "self.cancelled.store(true, Ordering::Release);"),
                ],
            },
            Bug {
                name: "a_dropped_parent_takes_its_children_out_of_the_tree",
                file: "shutdown.rs",
                edits: &[(
                    "let node = Arc::new(Node::new(false, Some((Arc::clone(&self.node), key))));",
                    "let node = Arc::new(Node::new(false, None));",
                )],
            },
        ],
    },
    Model {
        name: "hooks",
        folder: "lifecycle",
        modules: &[
            "calls", "hook", "hooks", "json", "names", "phase", "plan", "report", "hook_run", "own_threads", "returned", "shutdown",
            "signals",
        ],
        seam: None,
        bugs: &[
            Bug {
                name: "the_first_prerequisite_is_not_waited_for",
                file: "hook_run.rs",
                edits: &[(
                    "self.order[place]\n                .iter()\n",
                    "self.order[place].iter().skip(1)\n",
                )],
            },
            Bug {
                name: "who_is_late_does_not_look_again",
                file: "hook_run.rs",
                edits: &[("news.try_iter()", "news.try_iter().take(0)")],
            },
            Bug {
                name: "the_wait_is_for_the_last_limit",
                file: "hook_run.rs",
                edits: &[("limits.reduce(Duration::min)", "limits.reduce(Duration::max)")],
            },
            Bug {
                name: "all_are_left_behind_with_the_first",
                file: "hook_run.rs",
                edits: &[("if hurry || now >= until {", "if hurry || true {")],
            },
            Bug {
                name: "the_end_of_the_phase_is_no_limit",
                file: "hook_run.rs",
                edits: &[("now.saturating_add(limit).min(end)", "now.saturating_add(limit)")],
            },
        ],
    },
    Model {
        name: "phases",
        folder: "lifecycle",
        modules: &["mod"],
        seam: None,
        bugs: &[
            Bug {
                name: "hurry_interrupts_before_it_says_why",
                file: "state.rs",
                edits: &[(
                    "self.hurried.cancel();\n        self.gate.interrupt();",
                    "self.gate.interrupt();\n        self.hurried.cancel();",
                )],
            },
            Bug {
                name: "who_was_never_ready_is_not_drained",
                file: "walk.rs",
                edits: &[
                    ("if shared.may_have_work() {", "if false {"),
                    ("match shared.gate.count() {", "match 0 {"),
                ],
            },
            Bug {
                name: "the_guard_takes_one_signal_for_each_ring",
                file: "sentry.rs",
                edits: &[("while let Some(signal) = self.listener.take()", "if let Some(signal) = self.listener.take()")],
            },
            Bug {
                name: "the_guard_is_not_told_of_the_stop",
                file: "state.rs",
                edits: &[("self.news.notify_one();\n        self.bell.ring();", "self.news.notify_one();")],
            },
            Bug {
                name: "last_words_are_waited_for",
                file: "sentry.rs",
                edits: &[("self.sleeper.sleep(Some(left));", "self.sleeper.sleep(None);")],
            },
            Bug {
                name: "the_walk_sleeps_with_a_transition_untold",
                file: "walk.rs",
                edits: &[("            if !control.untold.is_empty() {\n                continue;\n            }\n", "")],
            },
            Bug {
                name: "stopped_is_said_before_the_report_is_there",
                file: "walk.rs",
                edits: &[(
                    "shared.report.get_or_init(|| report);\n        shared.stopped.cancel();",
                    "shared.stopped.cancel();\n        shared.report.get_or_init(|| report);",
                )],
            },
            Bug {
                name: "limits_of_the_stop_are_asked_of_the_system_alone",
                file: "walk.rs",
                edits: &[(
                    "let now = clock.read();",
                    "let now = Instant::now().saturating_duration_since(*self.shared.began.get().unwrap());",
                )],
            },
            Bug {
                name: "limits_of_hooks_are_asked_of_the_system_alone",
                file: "hook_run.rs",
                edits: &[("time.pass(Instant::now(), SLICE)", "time.pass(Instant::now(), Duration::from_secs(60))")],
            },
            Bug {
                name: "a_hurry_does_not_reach_the_start_up",
                file: "state.rs",
                edits: &[("let _ = startup.send(News::Hurry);", "")],
            },
            Bug {
                name: "a_stop_does_not_keep_hooks_from_starting",
                file: "startup_run.rs",
                edits: &[("self.control.lock().reason.is_none()", "true")],
            },
            Bug {
                name: "who_comes_too_late_is_not_undone",
                file: "startup.rs",
                edits: &[("stack.unwound = undo.is_none();", "")],
            },
            Bug {
                name: "what_is_asked_for_during_a_reload_is_forgotten",
                file: "one_at_a_time.rs",
                edits: &[("            state.wanted = true;\n", "")],
            },
            Bug {
                name: "a_reload_during_start_up_is_forgotten",
                file: "serving.rs",
                edits: &[("            if reload_wanted {\n", "            if false {\n")],
            },
            Bug {
                name: "a_step_is_not_taken_under_the_lock",
                file: "serving.rs",
                edits: &[(
                    "shared.step(&mut control, Phase::Serving);\n            let workers = std::mem::take(&mut control.workers_to_start);\n            drop(control);",
                    "let workers = std::mem::take(&mut control.workers_to_start);\n            drop(control);\n            shared.enter(Phase::Serving);",
                )],
            },
        ],
    },
    Model {
        name: "workers",
        folder: "lifecycle",
        modules: &["mod"],
        seam: None,
        bugs: &[
            Bug {
                name: "a_spawn_looks_before_the_stop_and_enters_after_it",
                file: "seats.rs",
                edits: &[(
                    "control.workers.push(Arc::clone(&seat));",
                    "drop(control);\n        self.control.lock().workers.push(Arc::clone(&seat));",
                )],
            },
            Bug {
                name: "who_joins_takes_a_worker_without_a_thread_for_over",
                file: "seat.rs",
                edits: &[("self.over.wait();\n", "")],
            },
            Bug {
                name: "the_drain_waits_for_workers_that_have_ended",
                file: "seat.rs",
                edits: &[("if state.ended.is_none() && !self.until_closing {", "if !self.until_closing {")],
            },
            Bug {
                name: "who_fails_in_the_stop_is_forgotten",
                file: "seats.rs",
                edits: &[("if control.reason.is_none() {", "if true {")],
            },
            Bug {
                name: "the_wait_for_a_restart_hears_nothing",
                file: "workers.rs",
                edits: &[("token.wait_timeout(delay)", "super::Canceller::new().wait_timeout(delay)")],
            },
        ],
    },
    Model {
        name: "handover",
        folder: "calls",
        modules: &["decision", "lanes", "queues", "roster"],
        seam: None,
        bugs: &[
            Bug {
                name: "nobody_is_sent_to_poll",
                file: "roster.rs",
                edits: &[(
                    "match state.call_poller(&self.called) {\n            true if begin_watch",
                    "match true {\n            true if begin_watch",
                )],
            },
            Bug {
                name: "the_watch_does_not_know_since_when",
                file: "roster.rs",
                edits: &[("*unpolled_since = Some(now);\n                    *idle = 0;", "*idle = 0;")],
            },
            Bug {
                name: "the_watch_takes_a_pause_for_a_mistake",
                file: "roster.rs",
                edits: &[(
                    "Some(since) if now.saturating_duration_since(*since) >= TICK => {}",
                    "Some(since) if (TICK..64 * TICK).contains(&now.saturating_duration_since(*since)) => {}",
                )],
            },
            Bug {
                name: "who_rests_does_not_look_whether_it_was_called",
                file: "roster.rs",
                edits: &[(
                    "while state.called + state.summoned + state.dismissed == 0 && !state.closed {\n            self.called.wait(&mut state);\n        }",
                    "self.called.wait(&mut state);",
                )],
            },
            Bug {
                name: "what_waits_is_forgotten",
                file: "roster.rs",
                edits: &[(
                    "            false => state.waiting.next(),\n",
                    "            false => state.waiting.next().filter(|_| false),\n",
                )],
            },
            Bug {
                name: "close_wakes_nobody",
                file: "roster.rs",
                edits: &[(
                    "state.dismissed = 0;\n        self.called.notify_all();\n",
                    "state.dismissed = 0;\n",
                )],
            },
            Bug {
                name: "who_was_called_is_let_go",
                file: "roster.rs",
                edits: &[
                    (
                        "        self.dismissed = self.dismissed.min(self.free() - 1);\n",
                        "",
                    ),
                    (
                        "state.free().saturating_sub(1)",
                        "state.resting",
                    ),
                    (
                        "        if state.called > 0 {\n            // The caller",
                        "        if state.called > 0 && state.dismissed == 0 {\n            // The caller",
                    ),
                ],
            },
            Bug {
                name: "who_relieves_is_not_counted",
                file: "roster.rs",
                edits: &[(
                    "            return Rested::End;\n        }\n        state.resting += 1;",
                    "            return Rested::End;\n        }",
                )],
            },
            Bug {
                name: "who_relieves_does_not_see_the_end",
                file: "roster.rs",
                edits: &[(
                    "        if !state.closed {\n            state.dismissed = others;",
                    "        {\n            state.dismissed = others;",
                )],
            },
            Bug {
                name: "the_last_one_leaves",
                file: "roster.rs",
                edits: &[("if state.polling == 1 || state.closed {", "if state.polling == 0 || state.closed {")],
            },
            Bug {
                name: "one_too_many_runs",
                file: "roster.rs",
                edits: &[(
                    "if (state.running >= self.workers || ",
                    "if (state.running > self.workers || ",
                )],
            },
            Bug {
                name: "what_comes_later_is_run_first",
                file: "roster.rs",
                edits: &[(
                    "if (state.running >= self.workers || !state.waiting.is_empty())",
                    "if (state.running >= self.workers)",
                )],
            },
            Bug {
                name: "nobody_hires",
                file: "roster.rs",
                edits: &[(
                    "!state.waiting.is_empty() && state.running < self.workers",
                    "false && state.running < self.workers",
                )],
            },
            Bug {
                name: "steps_are_refused_like_calls",
                file: "queues.rs",
                edits: &[("if outlook.is_step {\n", "if outlook.is_step && self.calls.is_empty() {\n")],
            },
            Bug {
                name: "steps_wait_until_no_call_does",
                file: "queues.rs",
                edits: &[("self.step_is_next = true;", "self.step_is_next = false;")],
            },
            Bug {
                name: "steps_that_wait_alone_are_forgotten",
                file: "queues.rs",
                edits: &[(
                    "let step_is_next = self.step_is_next || self.calls.is_empty();",
                    "let step_is_next = self.step_is_next;",
                )],
            },
            Bug {
                name: "who_was_not_hired_counts",
                file: "roster.rs",
                edits: &[("self.state.lock().running -= 1;", "")],
            },
        ],
    },
    Model {
        name: "board",
        folder: "server/health",
        modules: &["board"],
        seam: None,
        bugs: &[
            Bug {
                name: "the_state_is_looked_up_early",
                file: "board.rs",
                edits: &[
                    (
                        "let mut told = watcher.told.lock();",
                        "let state = self.state(&watcher.service);\n        let mut told = watcher.told.lock();",
                    ),
                    (
                        "let state = self.state(&watcher.service);\n        let news",
                        "let news",
                    ),
                ],
            },
            Bug {
                name: "nobody_looks_again_when_a_message_is_gone",
                file: "board.rs",
                edits: &[(
                    "if let Some(watcher) = watcher {\n            self.update(&watcher);",
                    "if let Some(watcher) = watcher {",
                )],
            },
            Bug {
                name: "the_last_is_decided_late",
                file: "board.rs",
                edits: &[
                    ("let is_last = !self.watchers.lock().open;", ""),
                    (
                        "if is_last {",
                        "let is_last = !self.watchers.lock().open;\n        if is_last {",
                    ),
                ],
            },
            Bug {
                name: "close_lets_nobody_go",
                file: "board.rs",
                edits: &[(
                    "self.watchers.lock().open = false;\n        self.tell(None);",
                    "self.watchers.lock().open = false;",
                )],
            },
            Bug {
                name: "an_end_is_not_remembered",
                file: "board.rs",
                edits: &[("if !told.ended {\n            told.ended = true;", "{")],
            },
        ],
    },
    Model {
        name: "places",
        folder: "calls",
        modules: &["decision", "lanes", "queues", "roster", "stream_threads"],
        seam: None,
        bugs: &[
            Bug {
                name: "a_place_that_is_given_back_is_offered_to_nobody",
                file: "roster.rs",
                edits: &[("let worker = !state.summon(self.workers, &self.called);", "let worker = false;")],
            },
            Bug {
                name: "who_steps_aside_leaves_nobody_to_poll",
                file: "roster.rs",
                edits: &[("let poller = state.polling == 0 && !state.call_poller(&self.called);", "let poller = false;")],
            },
            Bug {
                name: "who_is_summoned_polls",
                file: "roster.rs",
                edits: &[("            state.summoned -= 1;\n            return Rested::Work;", "            state.summoned -= 1;")],
            },
            Bug {
                name: "who_ends_aside_takes_what_waits_without_a_place",
                file: "roster.rs",
                edits: &[(
                    "state.aside -= 1;\n        if state.running < self.workers {",
                    "state.aside -= 1;\n        {",
                )],
            },
            Bug {
                name: "who_has_ended_is_moved_aside",
                file: "stream_threads.rs",
                edits: &[(
                    "let waiting: Vec<_> = waiting.cloned().collect();",
                    "let waiting: Vec<_> = waiting.cloned().collect();\n        drop(state);\n        let mut state = self.state.lock();",
                )],
            },
        ],
    },
];
