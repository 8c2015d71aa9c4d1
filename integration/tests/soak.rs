//! A tenth of `make soak`: load, with what the shims hold before and after.

use wherry_integration::prelude::*;
use wherry_integration::soak;

#[test]
fn slow_ten_containers_in_as_many_shims_hold_nothing_more() {
    soak::separate(10, &|_, _| ()).assert_steady();
}

#[test]
fn slow_five_containers_in_one_shim_hold_nothing_more() {
    known_difference!("v1", "the v1 flavour has one container per shim");
    soak::grouped(5, &|_, _| ()).assert_steady();
}

#[test]
fn slow_a_thousand_execs_hold_nothing_more() {
    soak::execs(1000, &|_, _| ()).assert_steady();
}

#[test]
fn slow_a_hundred_cycles_hold_nothing_more() {
    known_difference!("v1", "the v1 flavour has one container per shim");
    soak::cycles(100, &|_, _| ()).assert_steady();
}
