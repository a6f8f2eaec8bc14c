//! Lives in which webhooks are told of the ends of turns.

use super::*;
use crate::conversation::UNTOLD_MAX;
use crate::webhooks::Patience;
use klatch_protocol::Ended;

/// Of `acme`: 1 wants everything, 2 only what failed. Four attempts each, with waits of 5, 10 and 20 s.
fn webhooks() -> Vec<Webhook> {
    let patience = Patience { attempts: 4, first: Duration::from_secs(5), longest: Duration::from_secs(3_600) };
    let one = |id: u64, ends: &[Ended]| Webhook {
        id: WebhookId(id),
        name: "https://hooks.example".into(),
        tenant: Some("acme".into()),
        ends: ends.to_vec(),
        patience,
    };
    vec![one(1, &Ended::ALL), one(2, &[Ended::Failed])]
}

fn world(webhooks: Vec<Webhook>) -> World {
    let mut world = World { webhooks, ..World::new(Limits::default(), false) };
    world.activate_again();
    world
}

fn check_telling(script: &str) {
    run(world(webhooks()), script);
}

/// With turn 0 ended, saved, and the first attempt to tell of it under way.
const ONE_UNTOLD: &str = "activated
     create a
     saved
     submit b echo hello
     answer 0 hi
     saved";

fn after_one_untold(script: &str) {
    let mut world = world(webhooks());
    for line in ONE_UNTOLD.lines().map(str::trim) {
        world.step(line);
    }
    run(world, script);
}

#[test]
fn an_end_is_told_when_it_is_durable_and_that_it_was_is_written_down() {
    check_telling(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo hello -> answer 0
         answer 0 hi         -> open append 1-1 accepted0+attempt0#1+delta0:hi+to-tell0+completed0
         saved               -> b: turn 0 completed \"hi\", tell 1 of 0
         told 1 0            -> append 1-2 told0:1
         saved               ->
         close               -> remove open row
         row-removed         -> closed",
    );
}

#[test]
fn without_webhooks_for_the_tenant_nothing_is_written_and_no_row() {
    let mut others = webhooks();
    others.iter_mut().for_each(|webhook| webhook.tenant = Some("other".into()));
    for webhooks in [Vec::new(), others] {
        run(
            world(webhooks),
            "activated           ->
             create a            -> index append 1-0 claimed+created
             saved               -> a: conversation
             submit b echo hello -> answer 0
             answer 0 hi         -> append 1-1 accepted0+attempt0#1+delta0:hi+completed0
             saved               -> b: turn 0 completed \"hi\"
             close               -> closed",
        );
    }
}

#[test]
fn nothing_is_written_while_a_node_could_not_read_it() {
    let mut world = world(webhooks());
    world.all_read = false;
    run(
        world,
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo hello -> answer 0
         answer 0 hi         -> append 1-1 accepted0+attempt0#1+delta0:hi+completed0",
    );
}

#[test]
fn ends_are_told_one_after_the_other_and_each_webhook_has_its_own_order() {
    check_telling(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         submit b slow one   ->
         submit c slow two   ->
         saved               -> a: conversation, open append 1-1 accepted0+attempt0#1+accepted1
         saved               -> call 0#1
         fail 0              -> append 1-2 to-tell0+failed0+attempt1#1
         saved               -> b: turn 0 failed \"\", call 1#1, tell 1 of 0, tell 2 of 0
         end 1               -> append 1-3 to-tell1+completed1
         saved               -> c: turn 1 completed \"\"
         told 1 0            -> tell 1 of 1, append 1-4 told0:1
         saved               ->
         told 1 1            -> append 1-5 told1:1
         saved               ->
         told 2 0            -> append 1-6 told0:2",
    );
}

#[test]
fn a_webhook_that_does_not_hear_is_tried_again_later_and_given_up_in_the_end() {
    after_one_untold(
        "not-told 1 0        -> tell 1 in 3 s
         submit c echo more  -> answer 1
         answer 1 yes        -> append 1-2 accepted1+attempt1#1+delta1:yes+to-tell1+completed1
         saved               -> c: turn 1 completed \"yes\"
         telling-due 1       -> tell 1 of 0
         wait 9000           ->
         not-told 1 0        -> tell 1 in 8 s
         telling-due 1       -> tell 1 of 0
         not-told 1 0        -> tell 1 in 14 s
         telling-due 1       -> tell 1 of 0
         not-told 1 0        -> give up telling 1 of 0: Attempts, tell 1 of 1, append 1-3 told0:1
         saved               ->
         not-told 1 0        ->
         told 1 1            -> append 1-4 told1:1",
    );
}

#[test]
fn the_next_owner_tells_what_the_last_one_did_not_write_down_as_told() {
    after_one_untold(
        "told 1 0  -> append 1-2 told0:1
         restart 2
         activated -> tell 1 of 0
         told 1 0  -> append 2-1 told0:1",
    );
}

#[test]
fn who_takes_it_up_late_goes_on_with_longer_waits() {
    after_one_untold(
        "wait 6000
         restart 2
         activated    -> tell 1 of 0
         not-told 1 0 -> tell 1 in 8 s",
    );
}

#[test]
fn it_leaves_memory_untold_keeps_its_row_and_is_woken_in_time() {
    after_one_untold(
        "not-told 1 0  -> tell 1 in 3 s
         close         -> put off to 4542
         put-off       -> closed
         restart 2
         activated     -> tell 1 of 0",
    );
}

#[test]
fn where_it_cannot_be_written_down_when_to_go_on_it_stays() {
    after_one_untold(
        "close       -> put off to 1000
         not-put-off -> still busy
         told 1 0    -> append 1-2 told0:1
         saved       ->
         close       -> remove open row",
    );
}

#[test]
fn a_store_that_fails_has_it_started_again_and_another_owner_goes_on_himself() {
    after_one_untold(
        "told 1 0 -> append 1-2 told0:1
         down     -> stop call, give up unfinished",
    );
    after_one_untold(
        "told 1 0 -> append 1-2 told0:1
         fenced   -> stop call, give up",
    );
}

#[test]
fn what_ended_before_a_deletion_is_told_behind_it() {
    after_one_untold(
        "delete c  -> stop call, due append 1-2 deleted
         saved     -> write unindex, c: done, compact 0 items 0 turns
         compacted ->
         told 1 0  -> append 1-4 told0:1
         saved     -> compact 0 items 0 turns",
    );
}

#[test]
fn a_webhook_that_is_not_configured_any_more_is_waited_for_a_day() {
    let mut world = world(webhooks());
    for line in ONE_UNTOLD.lines().map(str::trim) {
        world.step(line);
    }
    world.webhooks.clear();
    run(
        world,
        "restart 2
         activated     ->
         close         -> put off to 86401000
         put-off       -> closed
         wait 86400000
         restart 3
         activated     -> give up telling 1 of 0: Unknown, append 2-1 told0:1",
    );
}

#[test]
fn the_oldest_is_given_up_where_too_many_are_untold() {
    let mut world = world(webhooks());
    for line in ONE_UNTOLD.lines().map(str::trim) {
        world.step(line);
    }
    for turn in 1..UNTOLD_MAX {
        world.step("submit b echo hello");
        world.step(&format!("answer {turn} hi"));
        if world.step("saved").contains("compact") {
            world.step("compacted");
        }
    }
    run(
        world,
        "submit b echo hello -> answer 256
         answer 256 hi -> give up telling 1 of 0: Full, tell 1 of 1, append 1-261 accepted256+attempt256#1+delta256:hi+told0:1+to-tell256+completed256",
    );
}
