//! Heights: everything in a column stands as near as it can to the mean height of its neighbours, in its order and with room between.

/// Sweeps to the right and back.
const SWEEPS: usize = 3;

/// What is to stand somewhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    pub(super) height: i64,
    /// Room above and below, of which between two the wider is left.
    pub(super) gap: i64,
    /// The upper edge.
    pub(super) y: i64,
}

/// A line between two slots that wants to be level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pull {
    pub(super) left: usize,
    pub(super) right: usize,
    /// How far below its upper edge the line leaves the left slot, and enters the right one.
    pub(super) out: i64,
    pub(super) into: i64,
    /// How much it wants to.
    pub(super) weight: i64,
}

/// Sets the upper edges of all the slots. Some may be negative.
pub(super) fn place(slots: &mut [Slot], columns: &[Vec<usize>], pulls: &[Pull]) {
    let mut from_left: Vec<Vec<usize>> = vec![Vec::new(); slots.len()];
    let mut from_right: Vec<Vec<usize>> = vec![Vec::new(); slots.len()];
    for (place, pull) in pulls.iter().enumerate() {
        from_left[pull.right].push(place);
        from_right[pull.left].push(place);
    }
    for column in columns {
        settle(slots, column, |_| std::iter::empty());
    }
    let left = |slot: usize| from_left[slot].iter().map(|place| pulls[*place]).map(|pull| (pull.left, pull.out - pull.into, pull.weight));
    let right =
        |slot: usize| from_right[slot].iter().map(|place| pulls[*place]).map(|pull| (pull.right, pull.into - pull.out, pull.weight));
    for _ in 0..SWEEPS {
        for column in columns {
            settle(slots, column, left);
        }
        for column in columns.iter().rev() {
            settle(slots, column, right);
        }
    }
    // Once more with both sides: what is between two ends stands between them.
    for column in columns {
        settle(slots, column, |slot| left(slot).chain(right(slot)));
    }
}

/// Slots that stand one below the other without room to spare: their common wish, how heavy it is, and how many they are.
struct Block {
    wish: i64,
    weight: i64,
    count: usize,
}

/// The least squares of the ways to the wished heights, by pooling neighbours that are in each other's way.
fn settle<I: Iterator<Item = (usize, i64, i64)>>(slots: &mut [Slot], column: &[usize], pulls: impl Fn(usize) -> I) {
    let mut blocks: Vec<Block> = Vec::with_capacity(column.len());
    let mut tops: Vec<i64> = Vec::with_capacity(column.len());
    let mut top = 0;
    let mut before: Option<Slot> = None;
    for slot in column {
        let here = slots[*slot];
        top += before.map_or(0, |before| before.height + before.gap.max(here.gap));
        before = Some(here);
        tops.push(top);
        let (mut sum, mut weight) = (0, 0);
        for (other, offset, pull) in pulls(*slot) {
            sum += (slots[other].y + offset) * pull;
            weight += pull;
        }
        let wish = if weight == 0 { here.y } else { sum.div_euclid(weight) };
        let mut block = Block { wish: (wish - top) * weight.max(1), weight: weight.max(1), count: 1 };
        while let Some(last) = blocks.pop_if(|last| last.wish.div_euclid(last.weight) > block.wish.div_euclid(block.weight)) {
            block = Block { wish: last.wish + block.wish, weight: last.weight + block.weight, count: last.count + block.count };
        }
        blocks.push(block);
    }
    let heights = blocks.iter().flat_map(|block| std::iter::repeat_n(block.wish.div_euclid(block.weight), block.count));
    for ((slot, top), height) in column.iter().zip(tops).zip(heights) {
        slots[*slot].y = height + top;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_in_the_middle_of_many_and_many_do_not_overlap() {
        let mut slots = [Slot { height: 30, gap: 10, y: 0 }; 4];
        let pull = |right| Pull { left: 0, right, out: 15, into: 15, weight: 1 };
        place(&mut slots, &[vec![0], vec![1, 2, 3]], &[pull(1), pull(2), pull(3)]);
        let y = slots.map(|slot| slot.y - slots[1].y);
        assert_eq!(y, [40, 0, 40, 80]);
    }
}
