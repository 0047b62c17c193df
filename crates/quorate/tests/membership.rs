//! Members that come and go while clients write.

use crate::common::{Client, Cluster, Finished, Newcomer, run, wait_for};
use std::thread;
use std::time::{Duration, Instant};

fn member(endpoint: &str, arguments: &[&str]) -> Finished {
    let mut words = vec!["member"];
    words.extend(arguments);
    words.extend(["--endpoint", endpoint]);
    run(&words)
}

#[test]
fn a_member_is_replaced_while_clients_write_and_nothing_is_lost() {
    let mut cluster = Cluster::formed();
    let fourth = Newcomer::new(&cluster, "n4");
    let mut client = cluster.client();
    client.put("before", "1");
    let mut n4 = fourth.start(&mut cluster);
    n4.wait_for_log("has no member n4");

    // The member that leaves led, so that leadership moves as well.
    let left = cluster.leader();
    let asked = cluster.endpoint((left + 1) % 3);
    let (name, with) = (Cluster::name(left), fourth.pair());
    let replacing = thread::spawn(move || member(&asked, &["replace", &name, "--with", &with]));
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !replacing.is_finished() || count < 50 {
        let begin = Instant::now();
        client.put(&format!("key/{count:05}"), &format!("value {count}"));
        longest = longest.max(begin.elapsed());
        count += 1;
    }
    let replaced = replacing.join().expect("the command ends");
    assert_eq!(replaced.code, Some(0), "{replaced:?}\n{}", n4.log());
    assert!(replaced.stdout.ends_with("done\n"), "{replaced:?}");
    println!("{}{count} puts meanwhile, the longest {longest:?}", replaced.stdout);

    assert_eq!(cluster.node(left).wait(), Some(1));
    let log = cluster.node(left).log();
    assert!(log.contains("was removed from this cluster"), "{log}");
    // A list is what the node that is asked has taken in, and the new one may hear of the last step a moment later.
    wait_for("the new member to know who is left", || {
        let list = member(&fourth.endpoint, &["list"]).stdout;
        (list.contains("n4") && !list.contains(&Cluster::name(left))).then_some(())
    });

    // The new member is one of two that are left.
    let (lost, kept) = ((left + 1) % 3, (left + 2) % 3);
    cluster.kill(lost);
    let mut client = Client::new(&[cluster.endpoint(kept), fourth.endpoint.clone()]);
    client.put("after", "2");
    for number in 0..count {
        let found =
            wait_for("a read", || client.get_at(1, &format!("key/{number:05}"), false).ok());
        assert_eq!(found.as_deref(), Some(format!("value {number}").as_str()));
    }
    assert_eq!(client.get_at(1, "after", false).expect("it serves").as_deref(), Some("2"));
}

#[test]
fn three_become_four_and_three_again_and_an_emptied_folder_does_not_count() {
    let mut cluster = Cluster::formed();
    let fourth = Newcomer::new(&cluster, "n4");
    let mut client = cluster.client();
    client.put("key", "value");
    let with = fourth.pair();
    let endpoint = cluster.endpoint(0);
    let asked = member(&endpoint, &["--wait", "0", "add", &with]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let mut n4 = fourth.start(&mut cluster);
    n4.wait_for_log("is joined");
    wait_for("n4 to vote", || {
        let list = member(&endpoint, &["list"]).stdout;
        let line = list.lines().find(|line| line.contains(" n4 "))?.to_owned();
        (line.contains("voter") && !line.contains("learner")).then_some(())
    });
    let mut alone = Client::new(std::slice::from_ref(&fourth.endpoint));
    wait_for("n4 to serve", || alone.get_at(0, "key", false).ok().flatten());

    n4.kill();
    std::fs::remove_dir_all(&fourth.data_dir).expect("it is there");
    let mut emptied = fourth.start(&mut cluster);
    assert_eq!(emptied.wait(), Some(1));
    assert!(emptied.log().contains("another data folder of n4"), "{}", emptied.log());

    let unknown = member(&endpoint, &["remove", "n9"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("there is no member n9"), "{unknown:?}");
    let removed = wait_for("the removal", || {
        let removed = member(&endpoint, &["remove", "n4"]);
        (removed.code == Some(0)).then_some(removed)
    });
    assert!(removed.stdout.ends_with("done\n"), "{removed:?}");
    client.put("key", "again");
}
