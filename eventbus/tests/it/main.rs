//! What every bus promises, tried on each of them; and what only the one on nats-server can be tried with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]
#![expect(clippy::print_stdout, reason = "a test that this machine does not allow says so")]

mod asyncapi;
mod buses;
mod cluster;
mod contract;
mod enrolment;
mod forgetful;
mod messages;
mod office;
mod outages;
mod permissions;
mod published;
mod renewal;
mod rogue;
mod setup;
mod watch;

/// Runs each test of the contract on the bus in memory and on a nats-server of its own.
macro_rules! on_both_buses {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                crate::contract::$test(crate::buses::Buses::memory()).await;
            })*
        }
        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let server = testkit::NatsServer::start().await;
                crate::contract::$test(crate::buses::Buses::nats(&server).await).await;
            })*
        }
    };
}

on_both_buses!(
    messages_of_one_publisher_arrive_in_order,
    every_listener_hears_a_message_and_one_of_each_group,
    a_question_is_answered_once,
    a_question_that_nobody_hears_fails_at_once,
    an_append_after_the_wrong_sequence_is_a_conflict,
    an_append_whose_acknowledgement_is_lost_is_stored_once,
    of_concurrent_appends_one_wins_at_each_sequence,
    a_trigger_that_is_stored_a_hundred_times_is_delivered_once,
    a_trigger_that_is_dropped_undone_comes_again,
    a_trigger_of_a_consumer_that_is_gone_comes_to_another,
    a_trigger_that_is_held_does_not_come_again,
    a_message_may_be_as_large_as_the_limit_and_no_larger,
    reading_all_logs_ends_with_the_last_record,
    reading_no_log_ends_at_once,
    what_stands_for_a_log_is_all_that_is_left_of_it,
    of_concurrent_roll_ups_one_wins,
    a_roll_up_whose_acknowledgement_is_lost_is_stored_once,
    a_log_that_is_rolled_up_while_it_is_read_is_never_read_as_nothing,
);
