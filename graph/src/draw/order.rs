//! The order in each column (Sugiyama, Tagawa, Toda: IEEE Transactions on Systems, Man, and Cybernetics 11, 1981): everything stands at the
//! mean place of its neighbours, so that lines seldom cross, and where nothing decides as it was added.

/// Sweeps to the right and back.
const SWEEPS: usize = 4;
/// Lines between columns up to which crossings are counted to keep the best of the orders; above, the first sweep is taken.
const COUNTED_MAX: usize = 4_000;

/// Lines between a column and the next: a slot of the one, a slot of the other.
pub(super) type Lines = Vec<(usize, usize)>;

/// Sorts the slots of each column; `lines[n]` leads from column `n` to the next one.
pub(super) fn sort(columns: &mut Vec<Vec<usize>>, lines: &[Lines], slots: usize) {
    let mut neighbours = Neighbours::of(lines, slots);
    let many = lines.iter().map(Vec::len).sum::<usize>() > COUNTED_MAX;
    neighbours.forward(columns);
    if many {
        return;
    }
    let mut best = (crossings(columns, lines, slots), columns.clone());
    for _ in 0..SWEEPS {
        neighbours.backward(columns);
        neighbours.forward(columns);
        let crossed = crossings(columns, lines, slots);
        if crossed < best.0 {
            best = (crossed, columns.clone());
        }
    }
    *columns = best.1;
}

struct Neighbours {
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
    /// Where each slot stands in its column.
    places: Vec<usize>,
}

impl Neighbours {
    fn of(lines: &[Lines], slots: usize) -> Self {
        let mut neighbours = Self { left: vec![Vec::new(); slots], right: vec![Vec::new(); slots], places: vec![0; slots] };
        for (left, right) in lines.iter().flatten() {
            neighbours.left[*right].push(*left);
            neighbours.right[*left].push(*right);
        }
        neighbours
    }

    fn forward(&mut self, columns: &mut [Vec<usize>]) {
        for column in columns {
            sorted(column, &self.left, &mut self.places);
        }
    }

    fn backward(&mut self, columns: &mut [Vec<usize>]) {
        for column in columns.iter_mut().rev() {
            sorted(column, &self.right, &mut self.places);
        }
    }
}

/// Sorts one column by the mean place of the neighbours on one side.
fn sorted(column: &mut [usize], neighbours: &[Vec<usize>], places: &mut [usize]) {
    /// Parts of a place, so that a mean need not be a whole number.
    const PARTS: usize = 1_024;
    let mut wished: Vec<(usize, usize)> = Vec::with_capacity(column.len());
    for (place, slot) in column.iter().enumerate() {
        let sum: usize = neighbours[*slot].iter().map(|other| places[*other]).sum();
        wished.push(((sum * PARTS).checked_div(neighbours[*slot].len()).unwrap_or(place * PARTS), *slot));
    }
    wished.sort_by_key(|(wish, _)| *wish);
    for (place, (slot, (_, wished))) in column.iter_mut().zip(wished).enumerate() {
        *slot = wished;
        places[wished] = place;
    }
}

/// How many pairs of lines cross.
fn crossings(columns: &[Vec<usize>], lines: &[Lines], slots: usize) -> usize {
    let mut places = vec![0; slots];
    for (place, slot) in columns.iter().flat_map(|column| column.iter().enumerate()) {
        places[*slot] = place;
    }
    let crossed = |(lines, right): (&Lines, &Vec<usize>)| {
        let mut ends: Vec<(usize, usize)> = lines.iter().map(|(left, right)| (places[*left], places[*right])).collect();
        ends.sort_unstable();
        // Inversions, with a Fenwick tree of the right ends so far.
        let mut tree = vec![0usize; right.len() + 1];
        let mut crossed = 0;
        for (count, (_, end)) in ends.iter().enumerate() {
            let mut below = 0;
            let mut place = end + 1;
            while place > 0 {
                below += tree[place];
                place &= place - 1;
            }
            crossed += count - below;
            let mut place = end + 1;
            while place < tree.len() {
                tree[place] += 1;
                place += place & place.wrapping_neg();
            }
        }
        crossed
    };
    lines.iter().zip(columns.iter().skip(1)).map(crossed).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_uncrossed_and_what_nothing_decides_stays() {
        let mut columns = vec![vec![0, 1], vec![2, 3], vec![4]];
        let lines = [vec![(0, 3), (1, 2)], vec![(2, 4), (3, 4)]];
        assert_eq!(crossings(&columns, &lines, 5), 1);
        sort(&mut columns, &lines, 5);
        assert_eq!(crossings(&columns, &lines, 5), 0);
        let mut columns = vec![vec![0], vec![3, 2, 1]];
        sort(&mut columns, &[vec![(0, 1), (0, 2), (0, 3)]], 4);
        assert_eq!(columns, [vec![0], vec![3, 2, 1]]);
    }
}
